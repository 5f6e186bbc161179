/* Sharing an operation between threads.

   The work is cut into fixed parts that do not depend on each other, so the result does not depend on who does which.
   A part is taken by whoever is free: a helper that the system does not run at the moment (another program is busy)
   delays nobody. */
#ifndef EA_PARALLEL_H
#define EA_PARALLEL_H

#include "vec.h"

/* One of `parts` parts; `worker` says who does it, 0 <= worker < threads: for memory of its own. */
typedef struct {
    int part, parts, worker;
} ea_share;

typedef void ea_body(const void *context, ea_share share);

/* Call `body` for every part, on this thread and up to threads - 1 helpers, and return when all are done. */
void ea_parallel(int threads, ea_body *body, const void *context);

/* `threads`, or 1 where an operation of so many multiply-adds is too short to pay. */
int ea_worth(int64_t work, int threads);

/* The share of 0..count; of pieces of `piece`. */
INLINE range share_of(int count, ea_share share) { return part_of(count, share.part, share.parts); }
INLINE range share_of_pieces(int count, int piece, ea_share share) {
    range r = part_of(ceil_div(count, piece), share.part, share.parts);
    return (range){smaller(count, r.first * piece), smaller(count, r.last * piece)};
}

#endif
