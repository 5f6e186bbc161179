#include "executor.h"

#include <stdatomic.h>
#include <time.h>

#include "parallel.h"

/* Where the steps inside Slices are: which sample and block, whose tiles. */
typedef struct {
    const ea_table *table;
    int32_t row, threads, sample, block;
    char *tiles;
    void *scratch;
} place;

static ea_tensor located(const place *at, int32_t number) {
    const ea_value *value = &at->table->values[number];
    ea_tensor tensor = value->tensor;
    if (value->base == EA_TILE) tensor.data = at->tiles + (intptr_t)tensor.data;
    if (value->base >= 0)
        tensor.data = (char *)at->table->values[value->base].tensor.data + at->sample * value->sample +
                      at->block * value->block;
    return tensor;
}

/* Of a float, all exponent bits: infinite or not a number. */
static int all_finite(const ea_tensor *tensor) {
    const uint32_t exponent = 0x7F800000;
    int64_t count = elements(tensor), bad = 0;
    for (int64_t start = 0; start < count && !bad; start += 4096) {
        int32_t found = 0;
        for (int64_t i = start; i < count && i < start + 4096; i++) {
            uint32_t bits;
            memcpy(&bits, floats(tensor) + i, 4);
            found |= (bits & exponent) == exponent;
        }
        bad = found;
    }
    return !bad;
}

static int32_t run_operation(const place *at, const ea_step *step) {
    ea_tensor tensors[EA_MOST_INPUTS + EA_OUTPUTS];
    const ea_tensor *operands[EA_MOST_INPUTS + EA_OUTPUTS] = {NULL};
    for (int i = 0; i < step->inputs + step->outputs; i++) {
        int32_t number = at->table->operands[step->operands + i];
        int slot = i < step->inputs ? i : EA_MOST_INPUTS + i - step->inputs;
        if (number < 0) continue;
        tensors[slot] = located(at, number);
        operands[slot] = &tensors[slot];
    }
    ea_call call = {.inputs = operands,
                    .outputs = operands + EA_MOST_INPUTS,
                    .attrs = at->table->attrs + step->attrs,
                    .workspace = step->inner ? at->scratch : step->workspace,
                    .threads = at->threads,
                    .input_count = step->inputs};
    if (!step->update) return ea_run_operation(step->code, &call);
    if (!all_finite(operands[1])) return EA_NOT_FINITE;
    ea_attr attrs[] = {{.i = at->row}, call.attrs[1]};
    call.attrs = attrs;
    return ea_run_operation(step->code, &call);
}

/* A Slices step; `trouble` is the first inner step that failed and how: status << 32 | step. */
typedef struct {
    const ea_table *table;
    const ea_slices *slices;
    char *workspace;
    int32_t row, threads;
    atomic_int_fast64_t *trouble;
} chain;

static int32_t run_inner(const chain *c, const place *at, int32_t first, int32_t count) {
    for (int32_t number = first; number < first + count; number++) {
        int32_t status = run_operation(at, &c->table->steps[number]);
        int_fast64_t none = 0;
        if (status) atomic_compare_exchange_strong(c->trouble, &none, (int_fast64_t)status << 32 | number);
        if (status) return status;
    }
    return EA_OK;
}

static void run_block(const chain *c, int block, int worker) {
    const ea_slices *s = c->slices;
    char *tiles = c->workspace + worker * aligned_bytes(s->tile_bytes + s->scratch_bytes);
    place at = {c->table, c->row, c->threads, 0, block, tiles, tiles + s->tile_bytes};
    if (run_inner(c, &at, s->first, s->before)) return;
    for (; at.sample < c->table->samples; at.sample++)
        if (run_inner(c, &at, s->first + s->before, s->each)) return;
    at.sample = 0;
    run_inner(c, &at, s->first + s->before + s->each, s->after);
}

static void run_blocks(const void *context, ea_share share) {
    const chain *c = context;
    range blocks = share_of(c->slices->blocks, share);
    for (int block = blocks.first; block < blocks.last && !atomic_load(c->trouble); block++)
        run_block(c, block, share.worker);
}

static int32_t run_slices(const ea_table *table, const ea_step *step, int32_t row, ea_report *report) {
    const ea_slices *slices = &table->slices[step->slices];
    atomic_int_fast64_t trouble = 0;
    chain c = {table, slices, step->workspace, row, 1, &trouble};
    if (slices->blocks == 1) {
        c.threads = table->threads;
        run_block(&c, 0, 0);
    } else
        ea_parallel(ea_worth(table->samples * slices->sample_work, smaller(table->threads, slices->blocks)),
                    run_blocks, &c);
    if (!trouble) return EA_OK;
    const ea_step *failed = &table->steps[trouble & 0x7FFFFFFF];
    report->value = failed->inputs > 1 ? table->operands[failed->operands + 1] : -1;
    return (int32_t)(trouble >> 32);
}

static int32_t run_step(const ea_table *table, const ea_step *step, int32_t row, ea_report *report) {
    if (step->code == EA_LOAD) return EA_OK;
    if (step->code == EA_SLICES) return run_slices(table, step, row, report);
    place at = {.table = table, .row = row, .threads = table->threads};
    report->value = step->inputs > 1 ? table->operands[step->operands + 1] : -1;
    return run_operation(&at, step);
}

static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int32_t ea_execute(const ea_table *table, int32_t first, int32_t last, int32_t row, ea_after *after, int64_t interval,
                   ea_report *report) {
    int64_t told = nanoseconds();
    for (report->step = first; report->step < last; report->step++) {
        int32_t status = run_step(table, &table->steps[report->step], row, report);
        if (status) return status;
        if (!after || (interval && nanoseconds() - told < interval)) continue;
        if (after(report->step)) return EA_INTERRUPTED;
        told = nanoseconds();
    }
    return EA_OK;
}
