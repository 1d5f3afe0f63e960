/* Squared distances to the nearest set voxel of a mask, one axis after the other, with the numbers of further/distances.py: each is
   the least of the same sums, so that the order in which they are taken has no effect, nor has the number of threads. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#define LOOP _Pragma("omp simd") for (int64_t k = 0; k < WIDTH; k++)

enum { NO_MEMORY = 4 };
enum { WIDTH = 64 }; /* of a block: columns along the axis that are searched together */

typedef struct {
    const uint8_t *mask; /* the set voxels, along the first axis; NULL along the others */
    float *squares;      /* (outer, length, inner): the squared distances along the axes so far, which are written over */
    int64_t outer, length, inner;
    int64_t columns; /* that a call searches */
    double step;     /* from a voxel to the next one */
} Axis;

/* Along the first axis: two sweeps over the columns, of 0 at set voxels and infinity elsewhere. */
static void sweep(const Axis *a, float *block) {
    const float step = (float)a->step;
    for (int64_t i = 1; i < a->length; i++) {
        float *row = block + i * WIDTH;
        LOOP row[k] = row[k] < row[k - WIDTH] + 1.0f ? row[k] : row[k - WIDTH] + 1.0f;
    }
    for (int64_t i = a->length - 2; i >= 0; i--) {
        float *row = block + i * WIDTH;
        LOOP row[k] = row[k] < row[k + WIDTH] + 1.0f ? row[k] : row[k + WIDTH] + 1.0f;
    }
    for (int64_t i = 0; i < a->length; i++) {
        float *row = block + i * WIDTH;
        LOOP row[k] = (row[k] * step) * (row[k] * step);
    }
}

static void lower(float *least, const float *row, float cost) {
    LOOP least[k] = row[k] + cost < least[k] ? row[k] + cost : least[k];
}

/* Along the other axes: the least, over all shifts, of the square at the shifted voxel plus that of the shift. A shift that is
   longer than every way so far is never nearest. */
static void search(const Axis *a, const float *block, int64_t i, float *least) {
    const float *row = block + i * WIDTH;
    LOOP least[k] = row[k];
    for (int64_t shift = 1; shift < a->length; shift++) {
        const double way = (double)shift * a->step;
        const float cost = (float)(way * way);
        int32_t above = 0;
        _Pragma("omp simd reduction(| : above)") for (int64_t k = 0; k < WIDTH; k++) above |= least[k] > cost;
        if (!above) break;
        if (i >= shift) lower(least, row - shift * WIDTH, cost);
        if (i + shift < a->length) lower(least, row + shift * WIDTH, cost);
    }
}

/* Search along one axis, in part `number` of the columns. */
int voxloss_nearest(const Axis *a, int64_t number) {
    const int64_t all = a->outer * a->inner, last = (number + 1) * a->columns, stop = last < all ? last : all;
    float *block = aligned_alloc(64, (size_t)a->length * WIDTH * sizeof(float));
    if (!block) return NO_MEMORY;
    for (int64_t start = number * a->columns; start < stop; start += WIDTH) {
        const int64_t n = stop - start < WIDTH ? stop - start : WIDTH;
        int64_t origin[WIDTH];
        _Alignas(64) float lowest[WIDTH], least[WIDTH];
        for (int64_t k = 0; k < WIDTH; k++) {
            const int64_t column = k < n ? start + k : start;
            origin[k] = column / a->inner * a->length * a->inner + column % a->inner;
            lowest[k] = INFINITY;
        }
        for (int64_t i = 0; i < a->length; i++) {
            float *row = block + i * WIDTH;
            if (a->mask) for (int64_t k = 0; k < WIDTH; k++) row[k] = a->mask[origin[k] + i * a->inner] ? 0.0f : INFINITY;
            else for (int64_t k = 0; k < WIDTH; k++) row[k] = a->squares[origin[k] + i * a->inner];
            LOOP lowest[k] = row[k] < lowest[k] ? row[k] : lowest[k];
        }
        if (a->mask) {
            sweep(a, block);
        } else { /* columns without a way to a set voxel would be searched to their ends */
            for (int64_t i = 0; i < a->length; i++)
                LOOP block[i * WIDTH + k] = lowest[k] < INFINITY ? block[i * WIDTH + k] : 0.0f;
        }
        for (int64_t i = 0; i < a->length; i++) {
            if (a->mask) LOOP least[k] = block[i * WIDTH + k];
            else search(a, block, i, least);
            LOOP least[k] = lowest[k] < INFINITY ? least[k] : INFINITY;
            for (int64_t k = 0; k < n; k++) a->squares[origin[k] + i * a->inner] = least[k];
        }
    }
    free(block);
    return 0;
}
