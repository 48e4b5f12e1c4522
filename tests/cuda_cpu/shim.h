/* The words of CUDA for a C compiler: a kernel runs block by block, its threads in turns.
 *
 * Threads of a block are coroutines: __syncthreads() passes on to the next thread, and returns when all have come as far.
 * Kernels without it run as plain calls, thread after thread.
 */

#include <stdint.h>
#include <stdlib.h>
#include <ucontext.h>

#define TPC_KERNEL static
#define __shared__ static

typedef struct {
    unsigned x, y, z;
} tpc_dim;
static tpc_dim blockIdx, threadIdx, blockDim, gridDim;

static ucontext_t tpc_scheduler, *tpc_thread;
static int *tpc_done;
static void (*tpc_body)(void *);
static void *tpc_given;

static void __syncthreads(void) { swapcontext(&tpc_thread[threadIdx.x], &tpc_scheduler); }

static void tpc_start(void)
{
    tpc_body(tpc_given);
    tpc_done[threadIdx.x] = 1;
}

enum { TPC_STACK = 1 << 14 };

static void tpc_run(void (*body)(void *), void *given, unsigned blocks, unsigned threads, int together)
{
    gridDim.x = blocks;
    blockDim.x = threads;
    tpc_body = body;
    tpc_given = given;
    char *stacks = together ? malloc((size_t)threads * TPC_STACK) : NULL;
    tpc_thread = calloc(threads, sizeof *tpc_thread);
    tpc_done = calloc(threads, sizeof *tpc_done);
    for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++) {
        if (!together) {
            for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++)
                body(given);
            continue;
        }
        for (unsigned t = 0; t < threads; t++) {
            tpc_done[t] = 0;
            getcontext(&tpc_thread[t]);
            tpc_thread[t].uc_stack.ss_sp = stacks + (size_t)t * TPC_STACK;
            tpc_thread[t].uc_stack.ss_size = TPC_STACK;
            tpc_thread[t].uc_link = &tpc_scheduler;
            makecontext(&tpc_thread[t], tpc_start, 0);
        }
        for (int left = 1; left;) { /* one round from a __syncthreads() to the next */
            left = 0;
            for (unsigned t = 0; t < threads; t++)
                if (!tpc_done[t]) {
                    threadIdx.x = t;
                    swapcontext(&tpc_scheduler, &tpc_thread[t]);
                    left |= !tpc_done[t];
                }
        }
    }
    free(stacks);
    free(tpc_thread);
    free(tpc_done);
}
