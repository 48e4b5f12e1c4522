/* Worker threads that wait awake for a while: the loops of a training step follow each other within a fraction of a
   millisecond, and waking a thread takes a good part of that. */

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>

#define API __attribute__((visibility("default")))
#define AWAKE 4000 /* looks at the next task before a worker sleeps, about 0.1 ms */

typedef int (*tpc_job)(const void *call);

static struct {
    pthread_mutex_t turn_of, sleep;
    pthread_cond_t wake;
    atomic_uint task; /* its number */
    atomic_int sleepers, left, failed;
    unsigned workers;
    tpc_job run;
    const char *calls;
    int64_t stride, count;
} pool = {.turn_of = PTHREAD_MUTEX_INITIALIZER, .sleep = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static inline void pause_a_little(void)
{
#if defined __x86_64__ || defined __i386__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("yield");
#endif
}

static void sleep_until_after(unsigned seen)
{
    pthread_mutex_lock(&pool.sleep);
    atomic_fetch_add(&pool.sleepers, 1);
    while (atomic_load(&pool.task) == seen)
        pthread_cond_wait(&pool.wake, &pool.sleep);
    atomic_fetch_sub(&pool.sleepers, 1);
    pthread_mutex_unlock(&pool.sleep);
}

typedef struct {
    int64_t number;
    unsigned seen;
} worker;

static worker workers[256];

/* Every so many-th call from that number on: 0 is the caller's, the others are the workers'. */
static void run_share(int64_t number)
{
    for (int64_t k = number; k < pool.count; k += pool.workers + 1)
        if (pool.run(pool.calls + k * pool.stride))
            atomic_store(&pool.failed, 1);
}

static void *work(void *which)
{
    worker *const own = which;
    for (;;) {
        for (int looks = 0; atomic_load(&pool.task) == own->seen; looks++)
            if (looks < AWAKE)
                pause_a_little();
            else
                sleep_until_after(own->seen);
        own->seen++;
        run_share(own->number);
        atomic_fetch_sub(&pool.left, 1);
    }
    return NULL;
}

/* A child process has none of its parent's threads. */
static void forget(void)
{
    pthread_mutex_init(&pool.turn_of, NULL);
    pthread_mutex_init(&pool.sleep, NULL);
    pthread_cond_init(&pool.wake, NULL);
    atomic_store(&pool.sleepers, 0);
    pool.workers = 0;
}

static void start_workers(int64_t wanted)
{
    static atomic_int registered;
    sigset_t all, before; /* signals are for the threads that Python knows */
    if (pool.workers >= wanted)
        return;
    if (!atomic_exchange(&registered, 1))
        pthread_atfork(NULL, NULL, forget);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool.workers < wanted && pool.workers < sizeof workers / sizeof *workers) {
        worker *const next = workers + pool.workers;
        pthread_t thread;
        *next = (worker){pool.workers + 1, atomic_load(&pool.task)};
        if (pthread_create(&thread, NULL, work, next))
            break;
        pthread_detach(thread);
        pool.workers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* run(call) for `count` calls that begin `stride` bytes apart, shared between the threads; whether one of them failed.
   While another thread is here, the caller runs all of them itself. */
API int tpc_run(tpc_job run, const char *calls, int64_t stride, int64_t count)
{
    int failed = 0;
    if (count == 1 || pthread_mutex_trylock(&pool.turn_of)) {
        for (int64_t k = 0; k < count; k++)
            failed |= run(calls + k * stride);
        return failed;
    }
    start_workers(count - 1);
    pool.run = run;
    pool.calls = calls;
    pool.stride = stride;
    pool.count = count;
    atomic_store(&pool.failed, 0);
    atomic_store(&pool.left, (int)pool.workers);
    atomic_fetch_add(&pool.task, 1);
    if (atomic_load(&pool.sleepers)) {
        pthread_mutex_lock(&pool.sleep);
        pthread_cond_broadcast(&pool.wake);
        pthread_mutex_unlock(&pool.sleep);
    }
    run_share(0);
    for (int looks = 0; atomic_load(&pool.left); looks++)
        if (looks < AWAKE)
            pause_a_little();
        else
            sched_yield();
    failed = atomic_load(&pool.failed);
    pthread_mutex_unlock(&pool.turn_of);
    return failed;
}
