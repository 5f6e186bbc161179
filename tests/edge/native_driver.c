/* Runs native kernels and step tables described on standard input, outputs to standard output: for processors that
   Python does not run on here. Integers are 32 bits; see native_driver.py for the order. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "executor.h"
#include "vec.h"

enum { GUARD = 64, BYTE = 0xA5 };

static void need(int good, const char *what) {
    if (good) return;
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static int32_t read_integer(void) {
    int32_t value;
    need(fread(&value, 4, 1, stdin) == 1, "input ends early");
    return value;
}

static unsigned char *guarded(size_t bytes) {
    unsigned char *memory = aligned_alloc(64, (bytes + 2 * GUARD + 63) / 64 * 64);
    need(memory != NULL, "no memory");
    memset(memory, BYTE, bytes + 2 * GUARD);
    return memory + GUARD;
}

static void check_guards(const unsigned char *memory, size_t bytes) {
    for (int i = 0; i < GUARD; i++)
        need(memory[-1 - i] == BYTE && memory[bytes + i] == BYTE, "a byte outside a buffer was written");
}

/* A tensor and its bytes; absent: no bytes and rank -1. */
static size_t read_tensor(ea_tensor *t) {
    t->rank = read_integer();
    if (t->rank < 0) return 0;
    for (int i = 0; i < t->rank; i++) t->shape[i] = read_integer();
    t->item_bytes = read_integer();
    size_t bytes = (size_t)elements(t) * (size_t)t->item_bytes;
    t->data = guarded(bytes);
    need(fread(t->data, 1, bytes, stdin) == bytes, "input ends early");
    return bytes;
}

static int32_t code_of(const char *name) {
    for (int32_t code = 0; code < ea_operation_count(); code++)
        if (!strcmp(ea_operation_name(code), name)) return code;
    need(0, "unknown operation");
    return -1;
}

static void run_call(int32_t name_bytes) {
    enum { COUNT = 16 };
    char name[64] = {0};
    ea_tensor tensors[COUNT + EA_OUTPUTS];
    const ea_tensor *pointers[COUNT + EA_OUTPUTS] = {NULL};
    size_t bytes[COUNT + EA_OUTPUTS];
    ea_attr attrs[16];
    need(name_bytes < 64 && fread(name, 1, (size_t)name_bytes, stdin) == (size_t)name_bytes, "bad name");
    need(fread(attrs, 4, 16, stdin) == 16, "input ends early");
    ea_call call = {.inputs = pointers, .outputs = pointers + COUNT, .attrs = attrs, .threads = read_integer()};
    call.input_count = read_integer();
    for (int i = 0; i < COUNT + EA_OUTPUTS; i++) {
        bytes[i] = read_tensor(&tensors[i]);
        if (tensors[i].rank >= 0) pointers[i] = &tensors[i];
    }
    int32_t code = code_of(name);
    size_t size = (size_t)ea_workspace_bytes(code, &call);
    unsigned char *workspace = guarded(size);
    call.workspace = workspace;
    need(ea_run_operation(code, &call) == EA_OK, "the operation failed");
    check_guards(workspace, size);
    free(workspace - GUARD);
    for (int i = 0; i < COUNT + EA_OUTPUTS; i++) {
        if (!pointers[i]) continue;
        check_guards(tensors[i].data, bytes[i]);
        if (i >= COUNT) fwrite(tensors[i].data, 1, bytes[i], stdout);
        free((unsigned char *)tensors[i].data - GUARD);
    }
}

static void *read_block(size_t bytes) {
    unsigned char *memory = guarded(bytes);
    need(fread(memory, 1, bytes, stdin) == bytes, "input ends early");
    return memory;
}

static void move(void *pointer, ptrdiff_t by) {
    char *address;
    memcpy(&address, pointer, sizeof address);
    if (address) address += by;
    memcpy(pointer, &address, sizeof address);
}

/* Let a table that was made elsewhere point into itself and into an image that was thought to lie at `base`. */
static void relocate(ea_table *table, ptrdiff_t table_by, ptrdiff_t image_by) {
    void **parts[] = {(void **)&table->values, (void **)&table->steps, (void **)&table->slices, (void **)&table->attrs,
                      (void **)&table->operands};
    for (int i = 0; i < 5; i++) move(parts[i], table_by);
    for (int i = 0; i < table->value_count; i++)
        if (table->values[i].base == EA_ADDRESS) move(&table->values[i].tensor.data, image_by);
    for (int i = 0; i < table->step_count; i++) move(&table->steps[i].workspace, image_by);
}

/* A step table and everything it works on, checked and run; the image comes back. */
static void run_table(void) {
    int32_t row = read_integer(), expected = read_integer(), addresses[4];
    for (int i = 0; i < 4; i++) addresses[i] = read_integer();
    int64_t made_at, base;
    memcpy(&made_at, addresses, 8);
    memcpy(&base, addresses + 2, 8);
    size_t table_bytes = (size_t)read_integer(), image_bytes = (size_t)read_integer();
    ea_table *table = read_block(table_bytes);
    char *image = read_block(image_bytes);
    relocate(table, (char *)table - (char *)(intptr_t)made_at, image - (char *)(intptr_t)base);
    ea_span spans[16];
    need(table->step_count <= 16, "too many steps");
    for (int i = 0; i < table->step_count; i++)
        spans[i] = (ea_span){(char *)table->steps[i].workspace - image, table->steps[i].workspace_bytes, i, i, i};
    int32_t homes[64];
    need(table->value_count <= 64, "too many values");
    memset(homes, -1, sizeof homes);
    ea_report report;
    int32_t status = ea_check(table, image, (int64_t)image_bytes, homes, spans, table->step_count, &report);
    need(status == EA_OK, "the table was refused");
    status = ea_execute(table, 0, table->step_count, row, NULL, 0, &report);
    need(status == expected, "another status than expected");
    check_guards((unsigned char *)table, table_bytes);
    check_guards((unsigned char *)image, image_bytes);
    fwrite(image, 1, image_bytes, stdout);
    free((unsigned char *)table - GUARD);
    free((unsigned char *)image - GUARD);
}

int main(void) {
    int32_t name_bytes;
    fprintf(stderr, "%s\n", ea_instruction_set());
    while (fread(&name_bytes, 4, 1, stdin) == 1) {
        if (name_bytes < 0) run_table();
        else run_call(name_bytes);
    }
    return 0;
}
