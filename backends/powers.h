/* S[s][o][·] = ⟨M[o], g[s] ⊗ ·⟩ for symmetric matrices M[o], packed by rows of the lower triangle with √2 off the
   diagonal (backends/powers.py). Every number t = M[o][i][j] is read once: it serves S[i] with g[j] and S[j] with g[i].
   Lanes are samples, so nothing is summed across lanes; rows go in fours, so that S[j] is loaded once for four of them. */

#include <stddef.h>
#include <stdint.h>

#define LANES 8
#define ROWS 4
#define LINE 16 /* floats of a cache line */
typedef float lanes __attribute__((vector_size(4 * LANES)));

/* One M[o] (rank(rank+1)/2) and LANES samples: s = 2^½ ⟨m, g ⊗ ·⟩, both (rank, LANES). */
static void half_of_one(const float *restrict m, const lanes *restrict g, lanes *restrict s, long rank)
{
    const float root2 = 1.41421356237309505f;
    for (long i = 0; i < rank; i++)
        s[i] = (lanes){0};
    long i = 0;
    for (; i + ROWS <= rank; i += ROWS) {
        const float *t0 = m + i * (i + 1) / 2, *t1 = t0 + i + 1, *t2 = t1 + i + 2, *t3 = t2 + i + 3;
        const lanes g0 = g[i], g1 = g[i + 1], g2 = g[i + 2], g3 = g[i + 3];
        lanes s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
        const float *next = t3 + i + 4; /* the next four rows, asked for while these are used */
        for (long j = 0; j < i; j++) {
            const lanes x = g[j];
            if (j % LINE == 0)
                for (long k = 0; k < ROWS; k++)
                    __builtin_prefetch(next + k * (i + 6) + j);
            s0 += t0[j] * x;
            s1 += t1[j] * x;
            s2 += t2[j] * x;
            s3 += t3[j] * x;
            s[j] += (t0[j] * g0 + t1[j] * g1) + (t2[j] * g2 + t3[j] * g3);
        }
        s0 += root2 * t0[i] * g0 + t1[i] * g1 + t2[i] * g2 + t3[i] * g3;
        s1 += t1[i] * g0 + root2 * t1[i + 1] * g1 + t2[i + 1] * g2 + t3[i + 1] * g3;
        s2 += t2[i] * g0 + t2[i + 1] * g1 + root2 * t2[i + 2] * g2 + t3[i + 2] * g3;
        s3 += t3[i] * g0 + t3[i + 1] * g1 + t3[i + 2] * g2 + root2 * t3[i + 3] * g3;
        s[i] = s0, s[i + 1] = s1, s[i + 2] = s2, s[i + 3] = s3;
    }
    for (; i < rank; i++) {
        const float *t = m + i * (i + 1) / 2;
        lanes sum = root2 * t[i] * g[i];
        for (long j = 0; j < i; j++) {
            sum += t[j] * g[j];
            s[j] += t[j] * g[i];
        }
        s[i] = sum;
    }
}

/* Outer indices first … last - 1 of m (outer, rank(rank+1)/2), g (groups, rank, LANES), scratch (rank, LANES),
   out (samples, outer, rank). */
__attribute__((visibility("default")))
void tpc_half(const float *m, const float *g, float *scratch, float *out, int64_t first, int64_t last, int64_t outer,
              int64_t samples, int64_t rank)
{
    const size_t size = (size_t)rank * (rank + 1) / 2, stride = (size_t)outer * rank;
    for (long o = first; o < last; o++)
        for (long base = 0; base < samples; base += LANES) {
            half_of_one(m + o * size, (const lanes *)(g + base * rank), (lanes *)scratch, rank);
            const long n = samples - base < LANES ? samples - base : LANES;
            for (long b = 0; b < n; b++) {
                float *to = out + (base + b) * stride + o * rank;
                for (long i = 0; i < rank; i++)
                    to[i] = 0.70710678118654752f * scratch[i * LANES + b];
            }
        }
}
