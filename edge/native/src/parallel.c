#include "parallel.h"

#ifdef _OPENMP
#include <omp.h>
#endif

enum { LEAST_WORK = 2500000 }; /* multiply-adds: about 100 microseconds on a slow core */

int ea_worth(int64_t work, int threads) { return work < LEAST_WORK ? 1 : threads; }

void ea_parallel(int threads, ea_body *body, const void *context) {
#ifdef _OPENMP
    if (threads > 1) {
#pragma omp parallel num_threads(threads)
        body(context, omp_get_thread_num(), omp_get_num_threads());
        return;
    }
#endif
    body(context, 0, 1);
}
