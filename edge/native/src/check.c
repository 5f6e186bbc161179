/* Checks of a step table before anything runs; see executor.h. */
#include "executor.h"
#include "vec.h"

typedef struct {
    const ea_table *table;
    const char *arena;
    int64_t arena_bytes;
    const int32_t *homes;
    const ea_span *spans;
    int32_t span_count;
    ea_report *report;
} check;

static int32_t fault(const check *c, int32_t status, int32_t value, int64_t found, int64_t expected) {
    c->report->value = value;
    c->report->found = found;
    c->report->expected = expected;
    return status;
}

static int64_t bytes_of(const ea_value *value) { return elements(&value->tensor) * value->tensor.item_bytes; }

static int within(int64_t first, int64_t bytes, int64_t room) {
    return first >= 0 && bytes >= 0 && first <= room && bytes <= room - first;
}

static int32_t check_shape(const check *c, int32_t number) {
    const ea_value *value = &c->table->values[number];
    const ea_tensor *t = &value->tensor;
    int64_t count = 1;
    if (t->rank < 0 || t->rank > EA_MAX_RANK) return fault(c, EA_BAD_SHAPE, number, t->rank, EA_MAX_RANK);
    for (int axis = 0; axis < t->rank; axis++) {
        if (t->shape[axis] < 1) return fault(c, EA_BAD_SHAPE, number, t->shape[axis], 1);
        if (__builtin_mul_overflow(count, (int64_t)t->shape[axis], &count) || count > INT64_MAX / 16)
            return fault(c, EA_BAD_SHAPE, number, t->shape[axis], INT64_MAX / 16);
    }
    if (t->item_bytes < 1 || t->item_bytes > 8 || t->item_bytes & (t->item_bytes - 1))
        return fault(c, EA_BAD_SHAPE, number, t->item_bytes, 8);
    return EA_OK;
}

/* A value with an address: all of it in its room, the room in the arena where it lies there. */
static int32_t check_address(const check *c, int32_t number) {
    const ea_value *value = &c->table->values[number];
    int64_t bytes = bytes_of(value);
    if (bytes > value->room) return fault(c, EA_BAD_ROOM, number, bytes, value->room);
    if (!value->tensor.data || (uintptr_t)value->tensor.data % (unsigned)value->tensor.item_bytes)
        return fault(c, EA_BAD_ADDRESS, number, (int64_t)(intptr_t)value->tensor.data, value->tensor.item_bytes);
    int64_t offset = (const char *)value->tensor.data - c->arena;
    if (c->homes[number] >= 0 && !within(offset, bytes, c->arena_bytes))
        return fault(c, EA_BAD_ADDRESS, number, offset, c->arena_bytes - bytes);
    return EA_OK;
}

/* A slice: that of the last sample and block in the bytes of the value it is a part of. */
static int32_t check_slice(const check *c, const ea_slices *slices, int32_t number) {
    const ea_table *table = c->table;
    const ea_value *value = &table->values[number];
    if (value->base >= number || table->values[value->base].base != EA_ADDRESS)
        return fault(c, EA_BAD_SLICES, number, value->base, EA_ADDRESS);
    int64_t last = (table->samples - 1) * value->sample + (slices->blocks - 1) * value->block;
    int64_t whole = bytes_of(&table->values[value->base]);
    if (value->sample < 0 || value->block < 0 || !within(last, bytes_of(value), whole))
        return fault(c, EA_BAD_ROOM, number, last + bytes_of(value), whole);
    if ((value->sample | value->block) % value->tensor.item_bytes)
        return fault(c, EA_BAD_ADDRESS, number, value->sample | value->block, value->tensor.item_bytes);
    return EA_OK;
}

static int32_t check_tile(const check *c, const ea_slices *slices, int32_t number) {
    const ea_value *value = &c->table->values[number];
    int64_t offset = (intptr_t)value->tensor.data;
    if (!within(offset, bytes_of(value), slices->tile_bytes))
        return fault(c, EA_BAD_ROOM, number, offset + bytes_of(value), slices->tile_bytes);
    if (offset % value->tensor.item_bytes)
        return fault(c, EA_BAD_ADDRESS, number, offset, value->tensor.item_bytes);
    return EA_OK;
}

/* The buffer of a value (of what it is a slice of) has its bytes at step `time`. */
static int32_t check_time(const check *c, int32_t number, int32_t time) {
    const ea_value *value = &c->table->values[number];
    if (value->base >= 0) return check_time(c, value->base, time);
    if (value->base == EA_TILE || c->homes[number] < 0) return EA_OK;
    int64_t offset = (const char *)value->tensor.data - c->arena;
    for (const ea_span *span = c->spans; span < c->spans + c->span_count; span++)
        if (span->buffer == c->homes[number] && span->first <= time && time <= span->last &&
            within(offset - span->offset, bytes_of(value), span->bytes))
            return EA_OK;
    return fault(c, EA_BAD_TIME, number, offset, bytes_of(value));
}

static int32_t check_value(const check *c, const ea_slices *slices, int32_t number, int32_t time) {
    int32_t status = check_shape(c, number), base = c->table->values[number].base;
    if (status) return status;
    if (base < EA_TILE || (base != EA_ADDRESS && !slices)) return fault(c, EA_BAD_SLICES, number, base, EA_ADDRESS);
    if (base == EA_ADDRESS) status = check_address(c, number);
    else status = base == EA_TILE ? check_tile(c, slices, number) : check_slice(c, slices, number);
    return status ? status : check_time(c, number, time);
}

/* What a value is a slice of, or the value itself. */
static const ea_value *whole(const ea_table *table, int32_t number) {
    const ea_value *value = &table->values[number];
    return value->base < 0 ? value : &table->values[value->base];
}

/* An output may take the place of an input, from the same first byte on, but not lie across another operand. */
static int32_t check_overlaps(const check *c, const ea_step *step) {
    const int32_t *operands = c->table->operands + step->operands;
    for (int i = step->inputs; i < step->inputs + step->outputs; i++)
        for (int k = 0; k < i; k++) {
            if (operands[i] < 0 || operands[k] < 0) continue;
            const ea_value *output = whole(c->table, operands[i]), *other = whole(c->table, operands[k]);
            int64_t distance = (const char *)output->tensor.data - (const char *)other->tensor.data;
            int apart = distance >= bytes_of(other) || -distance >= bytes_of(output) ||
                        (output->base == EA_TILE) != (other->base == EA_TILE);
            if (apart || (k < step->inputs && !distance)) continue;
            return fault(c, EA_BAD_OVERLAP, operands[i], operands[k], distance);
        }
    return EA_OK;
}

static int32_t check_operands(const check *c, const ea_slices *slices, const ea_step *step, int32_t time) {
    const ea_table *table = c->table;
    int count = step->inputs + step->outputs;
    if (step->inputs < 0 || step->outputs < 0 || step->operands < 0 || count > table->operand_count - step->operands)
        return fault(c, EA_BAD_OPERAND, -1, count, table->operand_count);
    for (int i = 0; i < count; i++) {
        int32_t number = table->operands[step->operands + i];
        if (number == -1) continue;
        if (number < 0 || number >= table->value_count)
            return fault(c, EA_BAD_OPERAND, -1, number, table->value_count);
        int32_t status = check_value(c, slices, number, time);
        if (status) return status;
    }
    return step->code >= 0 ? check_overlaps(c, step) : EA_OK;
}

/* What the operation says it needs, from the shapes alone. */
static int64_t needed(const ea_table *table, const ea_step *step, int32_t threads) {
    const ea_tensor *operands[EA_MOST_INPUTS + EA_OUTPUTS] = {NULL};
    for (int i = 0; i < step->inputs + step->outputs; i++) {
        int32_t number = table->operands[step->operands + i];
        if (number >= 0)
            operands[i < step->inputs ? i : EA_MOST_INPUTS + i - step->inputs] = &table->values[number].tensor;
    }
    ea_call call = {operands, operands + EA_MOST_INPUTS, table->attrs + step->attrs, NULL, threads, step->inputs};
    return ea_workspace_bytes(step->code, &call);
}

static int32_t check_operation(const check *c, const ea_slices *slices, const ea_step *step, int32_t time,
                               int32_t threads, int64_t room) {
    if (step->code < 0 || step->code >= ea_operation_count()) return fault(c, EA_BAD_CODE, -1, step->code, 0);
    if (step->inputs > EA_MOST_INPUTS) return fault(c, EA_BAD_OPERAND, -1, step->inputs, EA_MOST_INPUTS);
    if (step->outputs > EA_OUTPUTS) return fault(c, EA_BAD_OPERAND, -1, step->outputs, EA_OUTPUTS);
    if (step->attrs < 0 || step->attrs > c->table->attr_count) return fault(c, EA_BAD_CODE, -1, step->attrs, 0);
    if (step->update && (step->inputs < 3 || c->table->operands[step->operands + 1] < 0))
        return fault(c, EA_BAD_OPERAND, -1, step->inputs, 3);
    int32_t status = check_operands(c, slices, step, time);
    if (status) return status;
    int64_t need = needed(c->table, step, threads);
    return need > room ? fault(c, EA_BAD_WORKSPACE, -1, room, need) : EA_OK;
}

static int32_t check_slices(const check *c, const ea_step *step, int32_t time) {
    const ea_table *table = c->table;
    if (step->slices < 0 || step->slices >= table->slices_count) return fault(c, EA_BAD_SLICES, -1, step->slices, 0);
    const ea_slices *s = &table->slices[step->slices];
    int count = s->before + s->each + s->after, all = table->step_count + table->inner_count;
    if (s->blocks < 1 || s->before < 0 || s->each < 0 || s->after < 0 || s->first < table->step_count ||
        count > all - s->first)
        return fault(c, EA_BAD_SLICES, -1, s->blocks, count);
    int workers = s->blocks == 1 ? 1 : smaller(table->threads, s->blocks);
    int64_t one = aligned_bytes(s->tile_bytes + s->scratch_bytes);
    int64_t wanted = (workers - 1) * one + s->tile_bytes + s->scratch_bytes;
    if (s->tile_bytes < 0 || s->tile_bytes % EA_ALIGNMENT || s->scratch_bytes < 0 || wanted > step->workspace_bytes)
        return fault(c, EA_BAD_WORKSPACE, -1, step->workspace_bytes, wanted);
    for (int i = s->first; i < s->first + count; i++) {
        int32_t status = check_operation(c, s, &table->steps[i], time, s->blocks == 1 ? table->threads : 1,
                                         s->scratch_bytes);
        if (status) return status;
        if (!table->steps[i].inner) return fault(c, EA_BAD_SLICES, -1, i, 0);
    }
    return EA_OK;
}

static int32_t check_workspace(const check *c, const ea_step *step, int32_t time) {
    if (!step->workspace_bytes) return EA_OK;
    int64_t offset = (const char *)step->workspace - c->arena;
    if (!within(offset, step->workspace_bytes, c->arena_bytes) || (uintptr_t)step->workspace % EA_ALIGNMENT)
        return fault(c, EA_BAD_WORKSPACE, -1, offset, c->arena_bytes);
    for (const ea_span *span = c->spans; span < c->spans + c->span_count; span++)
        if (span->first <= time && time <= span->last && span->offset == offset && span->bytes == step->workspace_bytes)
            return EA_OK;
    return fault(c, EA_BAD_WORKSPACE, -1, offset, step->workspace_bytes);
}

static int32_t check_step(const check *c, int32_t time) {
    const ea_step *step = &c->table->steps[time];
    int32_t status = check_workspace(c, step, time);
    if (status) return status;
    if (step->code == EA_LOAD) return check_operands(c, NULL, step, time);
    if (step->code != EA_SLICES) return check_operation(c, NULL, step, time, c->table->threads, step->workspace_bytes);
    status = check_operands(c, NULL, step, time);
    return status ? status : check_slices(c, step, time);
}

static int32_t check_spans(const check *c) {
    for (const ea_span *a = c->spans; a < c->spans + c->span_count; a++) {
        c->report->step = a->first;
        if (!within(a->offset, a->bytes, c->arena_bytes))
            return fault(c, EA_BAD_ADDRESS, -1, a->offset, c->arena_bytes);
        for (const ea_span *b = c->spans; b < a; b++) {
            int together = a->first <= b->last && b->first <= a->last && a->buffer != b->buffer;
            if (!together || a->offset >= b->offset + b->bytes || b->offset >= a->offset + a->bytes) continue;
            c->report->step = larger(a->first, b->first);
            return fault(c, EA_SHARED_BYTES, -1, a->buffer, b->buffer);
        }
    }
    return EA_OK;
}

int32_t ea_check(const ea_table *table, const void *arena, int64_t arena_bytes, const int32_t *homes,
                 const ea_span *spans, int32_t span_count, ea_report *report) {
    check c = {table, arena, arena_bytes, homes, spans, span_count, report};
    *report = (ea_report){-1, -1, 0, 0};
    if (table->threads < 1 || table->samples < 1) return fault(&c, EA_BAD_SHAPE, -1, table->samples, 1);
    int32_t status = check_spans(&c);
    for (report->step = status ? report->step : 0; !status && report->step < table->step_count; report->step++) {
        status = check_step(&c, report->step);
        if (status) return status;
    }
    return status;
}
