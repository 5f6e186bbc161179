/* The interface of the kernel library: what Python (ctypes) and the executor call.

   A kernel reads its inputs, writes its outputs and its workspace, nothing else, and allocates nothing. Its
   meaning is that of the NumPy kernel of the same name in edge/reference: tensors are row-major, the batch
   first; parameter gradients are added to their output, every other output is overwritten. float is float32,
   labels are int64, channel numbers int32, masks and argmaxes are packed per sample as in docs/program.md and
   have shape (N, bytes); maps in 8 or 16 bits are levels, uint8 or uint16 of the map's shape, and ranges, (N, C, 2)
   float32.

   Results do not depend on anything but the inputs and `threads`: work is split into fixed ranges. */
#ifndef EA_ABI_H
#define EA_ABI_H

#include <stdint.h>

#define EA_ABI 3      /* changes with every incompatible change of this file or of an operation's attributes */
#define EA_MAX_RANK 6
#define EA_INPUTS 8
#define EA_OUTPUTS 4
#define EA_ALIGNMENT 16 /* of a workspace's first byte; a tensor is aligned to its elements */

typedef struct {
    void *data;
    int32_t rank;
    int32_t shape[EA_MAX_RANK];
    int32_t item_bytes; /* of one element; of a packed tensor 1 */
} ea_tensor;

typedef union {
    int32_t i;
    float f;
} ea_attr;

/* One call. `inputs` has EA_INPUTS entries or more (Concat: `input_count`) and `outputs` EA_OUTPUTS; absent and dropped
   ones are NULL. `attrs` holds what edge/native/attributes.py writes. */
typedef struct {
    const ea_tensor *const *inputs;
    const ea_tensor *const *outputs;
    const ea_attr *attrs;
    void *workspace;
    int32_t threads, input_count;
} ea_call;

enum { EA_OK = 0, EA_TOO_MANY_CHANNELS = 1, EA_UNKNOWN_OPERATION = 2 };

typedef int32_t ea_run(const ea_call *call);
/* Bytes of workspace, from shapes, attributes and threads alone (data may be NULL, item_bytes 0); enough for every
   smaller batch, too, and not growing with it beyond that of the fastest algorithm. */
typedef int64_t ea_need(const ea_call *call);

typedef struct {
    const char *name;
    ea_run *run;
    ea_need *need;
} ea_operation;

#define EA_EXPORT __attribute__((visibility("default")))

EA_EXPORT int32_t ea_abi(void);
EA_EXPORT const char *ea_instruction_set(void);
/* Start the helpers of calls with that many threads now instead of in the first such call. */
EA_EXPORT void ea_start_threads(int32_t threads);
EA_EXPORT int32_t ea_operation_count(void);
/* The name of operation `code`, 0 <= code < ea_operation_count(). */
EA_EXPORT const char *ea_operation_name(int32_t code);
/* Whether it may need a workspace at all. */
EA_EXPORT int32_t ea_has_workspace(int32_t code);
EA_EXPORT int64_t ea_workspace_bytes(int32_t code, const ea_call *call);
EA_EXPORT int32_t ea_run_operation(int32_t code, const ea_call *call);

#endif
