/* The words of CUDA for a C compiler: a kernel runs block by block, its threads in turns.
 *
 * Threads of a block are coroutines: __syncthreads() passes on to the next one, and returns when all have come as far.
 * Kernels without it run as plain calls, thread after thread.
 */

#include <stdlib.h>
#include <ucontext.h>

#define TPC_KERNEL static __attribute__((unused))
#define __shared__ static volatile

typedef struct {
    unsigned x, y, z;
} tpc_dim;
static tpc_dim blockIdx, threadIdx, blockDim, gridDim;

enum { TPC_THREADS = 1024, TPC_STACK = 1 << 15 };

static void *tpc_jump[TPC_THREADS][5], *tpc_home[5]; /* where a thread goes on; where its turn began */
static volatile int tpc_ready, tpc_done[TPC_THREADS];
static void (*tpc_body)(void *);
static void *tpc_given;

/* a thread's turn ends */
static __attribute__((noipa)) void tpc_leave(void) { __builtin_longjmp(tpc_home, 1); }

static __attribute__((noipa)) void __syncthreads(void)
{
    const unsigned self = threadIdx.x;
    if (!__builtin_setjmp(tpc_jump[self]))
        tpc_leave();
}

static void tpc_thread(int self)
{
    for (;;) {
        __syncthreads(); /* waits for its first turn, and after a block for the next */
        tpc_body(tpc_given);
        tpc_done[self] = 1;
    }
}

static __attribute__((noipa)) void tpc_enter(unsigned self)
{
    static ucontext_t start;
    if (self < (unsigned)tpc_ready)
        __builtin_longjmp(tpc_jump[self], 1);
    getcontext(&start);
    start.uc_stack.ss_sp = malloc(TPC_STACK);
    start.uc_stack.ss_size = TPC_STACK;
    tpc_ready = (int)self + 1;
    makecontext(&start, (void (*)(void))tpc_thread, 1, (int)self);
    setcontext(&start);
}

static __attribute__((noipa)) void tpc_turn(unsigned self)
{
    threadIdx.x = self;
    if (!__builtin_setjmp(tpc_home))
        tpc_enter(self);
}

static void tpc_run(void (*body)(void *), void *given, unsigned blocks, unsigned threads, int together)
{
    gridDim.x = blocks;
    blockDim.x = threads;
    tpc_body = body;
    tpc_given = given;
    if (together)
        for (unsigned t = (unsigned)tpc_ready; t < threads; t++)
            tpc_turn(t); /* which brings it to where it waits */
    for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++) {
        if (!together) {
            for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++)
                body(given);
            continue;
        }
        for (unsigned t = 0; t < threads; t++)
            tpc_done[t] = 0;
        for (int left = 1; left;) { /* one round, from a __syncthreads() to the next */
            left = 0;
            for (unsigned t = 0; t < threads; t++)
                if (!tpc_done[t]) {
                    tpc_turn(t);
                    left |= !tpc_done[t];
                }
        }
    }
}
