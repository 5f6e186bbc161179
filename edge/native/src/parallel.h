/* Running a function on several threads; each gets its number and how many there are. */
#ifndef EA_PARALLEL_H
#define EA_PARALLEL_H

#include <stdint.h>

typedef void ea_body(const void *context, int thread, int threads);

/* Call `body` on `threads` threads (on this one alone without OpenMP) and wait for all. */
void ea_parallel(int threads, ea_body *body, const void *context);

/* `threads`, or 1 where an operation of so many multiply-adds (or moved elements) is too short to pay. */
int ea_worth(int64_t work, int threads);

#endif
