#include "parallel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum {
    LEAST_WORK = 2500000, /* multiply-adds: about 100 microseconds on a slow core */
    PARTS_PER_THREAD = 8,
    MOST_HELPERS = 63,
    STACK_BYTES = 262144,
    SPINS = 4000, /* looks before sleeping: tens of microseconds, less than the shortest shared operation */
};

/* Nanoseconds without helpers after they were a hindrance: once, again and again. */
#define SHORTEST_PAUSE 1000000
#define LONGEST_PAUSE 64000000

/* The pool. `ticket` holds the number of the job, its threads and how many parts are left to be taken; whoever takes
   one may use the job until it has counted the part in `unfinished`, which the caller waits for. */
static struct {
    pthread_mutex_t busy, lock;
    pthread_cond_t work, finished;
    atomic_uint_fast64_t ticket;
    atomic_int unfinished, sleepers, waiting;
    ea_body *body;
    const void *context;
    int parts, helpers;
    int64_t pause, resume;
} pool = {.busy = PTHREAD_MUTEX_INITIALIZER,
          .lock = PTHREAD_MUTEX_INITIALIZER,
          .work = PTHREAD_COND_INITIALIZER,
          .finished = PTHREAD_COND_INITIALIZER};

static int left(uint_fast64_t ticket) { return (int)(ticket & 0xFFFFFF); }
static int has_work(uint_fast64_t ticket, int worker) {
    return left(ticket) && worker < (int)(ticket >> 24 & 0xFF);
}
static uint_fast64_t next_job(uint_fast64_t ticket, int threads, int parts) {
    return ((ticket >> 32) + 1) << 32 | (uint_fast64_t)threads << 24 | (uint_fast64_t)parts;
}
static int is_waited_for(int worker) { return has_work(atomic_load(&pool.ticket), worker); }

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    __asm__ volatile("" ::: "memory");
#endif
}

/* Take parts until none is left. */
static void do_parts(int worker) {
    uint_fast64_t ticket = atomic_load(&pool.ticket);
    while (has_work(ticket, worker)) {
        if (!atomic_compare_exchange_weak(&pool.ticket, &ticket, ticket - 1)) continue;
        pool.body(pool.context, (ea_share){pool.parts - left(ticket), pool.parts, worker});
        if (atomic_fetch_sub(&pool.unfinished, 1) == 1 && atomic_load(&pool.waiting)) {
            pthread_mutex_lock(&pool.lock);
            pthread_cond_signal(&pool.finished);
            pthread_mutex_unlock(&pool.lock);
        }
        ticket = atomic_load(&pool.ticket);
    }
}

static void *help(void *argument) {
    int worker = (int)(intptr_t)argument;
    for (;;) {
        for (int i = 0; i < SPINS && !is_waited_for(worker); i++) relax();
        if (!is_waited_for(worker)) {
            pthread_mutex_lock(&pool.lock);
            atomic_fetch_add(&pool.sleepers, 1);
            while (!is_waited_for(worker)) pthread_cond_wait(&pool.work, &pool.lock);
            atomic_fetch_sub(&pool.sleepers, 1);
            pthread_mutex_unlock(&pool.lock);
        }
        do_parts(worker);
    }
    return NULL;
}

/* A child process has no helpers. */
static void forget_helpers(void) {
    pool.helpers = 0;
    pool.busy = pool.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    pool.work = pool.finished = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    atomic_store(&pool.ticket, 0);
    atomic_store(&pool.sleepers, 0);
    atomic_store(&pool.waiting, 0);
}

static void start_helpers(int wanted) {
    static int watched;
    if (!watched) watched = pthread_atfork(NULL, NULL, forget_helpers) == 0;
    pthread_attr_t attributes;
    if (pool.helpers >= wanted || pthread_attr_init(&attributes)) return;
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_t thread;
    while (pool.helpers < wanted && !pthread_create(&thread, &attributes, help, (void *)(intptr_t)(pool.helpers + 1)))
        pool.helpers++;
    pthread_attr_destroy(&attributes);
}

static void publish(int threads, int parts, ea_body *body, const void *context) {
    pool.body = body;
    pool.context = context;
    pool.parts = parts;
    atomic_store(&pool.unfinished, parts);
    atomic_store(&pool.ticket, next_job(atomic_load(&pool.ticket), threads, parts));
    if (!atomic_load(&pool.sleepers)) return;
    pthread_mutex_lock(&pool.lock);
    pthread_cond_broadcast(&pool.work);
    pthread_mutex_unlock(&pool.lock);
}

static void wait_for_helpers(void) {
    for (int i = 0; i < SPINS && atomic_load(&pool.unfinished); i++) relax();
    if (!atomic_load(&pool.unfinished)) return;
    pthread_mutex_lock(&pool.lock);
    atomic_store(&pool.waiting, 1);
    while (atomic_load(&pool.unfinished)) pthread_cond_wait(&pool.finished, &pool.lock);
    atomic_store(&pool.waiting, 0);
    pthread_mutex_unlock(&pool.lock);
}

static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Where another program keeps a processor busy, a helper may stop in the middle of a part for longer than the whole
   operation takes. Then operations are done alone for a while, each time for longer, until helpers pay again. */
static void judge_helpers(int64_t started, int64_t own_end, int64_t end) {
    if (end - own_end > (own_end - started) / 2) {
        pool.pause = pool.pause ? 2 * pool.pause : SHORTEST_PAUSE;
        if (pool.pause > LONGEST_PAUSE) pool.pause = LONGEST_PAUSE;
        pool.resume = end + pool.pause;
    } else
        pool.pause = 0;
}

static void do_alone(ea_body *body, const void *context, int parts) {
    for (int part = 0; part < parts; part++) body(context, (ea_share){part, parts, 0});
}

int ea_worth(int64_t work, int threads) { return work < LEAST_WORK ? 1 : threads; }

void ea_start_threads(int32_t threads) {
    pthread_mutex_lock(&pool.busy);
    start_helpers(smaller(threads - 1, MOST_HELPERS));
    pthread_mutex_unlock(&pool.busy);
}

/* Where another thread of the program has the helpers, this one works alone. */
void ea_parallel(int threads, ea_body *body, const void *context) {
    threads = smaller(threads, MOST_HELPERS + 1);
    int parts = threads > 1 ? threads * PARTS_PER_THREAD : 1;
    if (threads <= 1 || pthread_mutex_trylock(&pool.busy)) {
        do_alone(body, context, parts);
        return;
    }
    int64_t started = nanoseconds();
    if (started < pool.resume) {
        do_alone(body, context, parts);
    } else {
        start_helpers(threads - 1);
        publish(threads, parts, body, context);
        do_parts(0);
        int64_t own_end = nanoseconds();
        wait_for_helpers();
        judge_helpers(started, own_end, nanoseconds());
    }
    pthread_mutex_unlock(&pool.busy);
}
