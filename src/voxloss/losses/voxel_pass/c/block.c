/* What is read of the voxels for softmax against labels: blocks of them, which stay in cache.

   Symbols are those of kernels.py, and the formulas too, where they are explained. Every call does one part of one
   sample and writes sums of its own, so that results depend neither on the number of threads nor on their order. No
   function of libm: theirs do not vectorise. */

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 256
#define ROW (BLOCK + 16) /* a power of two apart, the rows would share few places of the cache */
#define PRAGMA(text) _Pragma(#text)
/* Loops over the n voxels that a block has; over its whole length, which is known, all others: they are faster. */
#define EACH PRAGMA(omp simd) for (int64_t i = 0; i < n; i++)
#define LOOP PRAGMA(omp simd) for (int64_t i = 0; i < BLOCK; i++)
#define ADD(sum) PRAGMA(omp simd reduction(+ : sum)) for (int64_t i = 0; i < BLOCK; i++)
#define INLINE static inline __attribute__((always_inline))

/* Types of tensors, what a call returns, and rows. */
enum { FLOAT32, FLOAT64, BFLOAT16, UINT8, INT8, UINT16, INT16, UINT32, INT32, UINT64, INT64 };
enum { LABEL_FAULT = 1, WEIGHT_FAULT = 2, NO_MEMORY = 4 };

typedef struct {
    void *data;
    int64_t sample, channel, voxel; /* strides */
    int64_t type;
} Tensor;

typedef struct {
    Tensor logits, target, weight, gradient, regions, shares; /* of `shares` a channel is a selection */
    int64_t voxels, classes, part, exponent_count, ignores, ignore_index;
    int64_t tube;           /* whether there is one: a voxel of it has its weight with a minus */
    int64_t squared;        /* whether there is a row of (p-t)^2 / 2, after the focal ones */
    int64_t hardest;        /* the number of selections of voxels, which have the last rows */
    int64_t bin_count;      /* how many numbers of bins there are, whose rows come last */
    const int64_t *bins;    /* these numbers */
    const float *exponents; /* (exponents, classes) */
    const float *upstream;  /* (samples, rows, classes); those of Σ (1-p)·t are taken off those of Σ p·t already */
    double *sums;           /* (parts, rows, classes); NULL where they are not asked for, like `upstream` */
    int64_t *counted;       /* (parts) */
    int32_t *bits;          /* (samples, voxels) */
    const int64_t *offsets; /* (samples, classes - 1): the place of the first region */
    int64_t places;         /* of the regions of all samples */
    double *lesions;        /* (parts, 2 * places, LESION_SUMS); NULL where they are not asked for */
    const float *of_lesions; /* (2 * places, 2), see `read_lesion_slopes` */
} Pass;

/* One block of voxels. `others` are the probabilities without the label's, times 1/scale. */
typedef struct {
    _Alignas(64) float weight[BLOCK], top[BLOCK], chosen[BLOCK], own[BLOCK], rest[BLOCK], scale[BLOCK];
    float hit[BLOCK], miss[BLOCK], surprise[BLOCK], first[BLOCK], second[BLOCK], third[BLOCK];
    float tube[BLOCK]; /* 1 in the tube, else 0 */
    int64_t raw[BLOCK];
    int32_t label[BLOCK]; /* -1 where a voxel does not count */
    _Alignas(64) float others[]; /* (classes, ROW) */
} Block;

INLINE float as_float(uint32_t bits) { float x; memcpy(&x, &bits, 4); return x; }
INLINE uint32_t as_bits(float x) { uint32_t bits; memcpy(&bits, &x, 4); return bits; }
INLINE double as_double(uint64_t bits) { double x; memcpy(&x, &bits, 8); return x; }
INLINE uint64_t as_long_bits(double x) { uint64_t bits; memcpy(&bits, &x, 8); return bits; }

/* Rounded to nearest, ties to even. */
INLINE uint16_t bfloat16(float x) {
    const uint32_t bits = as_bits(x);
    return x != x ? 0x7fc0u : (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/* exp(x) for x <= 0: 2^k e^r with |r| <= log(2)/2. Adding 1.5 * 2^23 rounds to whole numbers. */
INLINE float exponential(float x) {
    const float shift = 12582912.0f, shifted = x * 1.44269504f + shift, k = shifted - shift;
    const float r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
    float y = 1.9875691500e-4f;
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = (y * r * r + r) + 1.0f;
    y *= as_float((as_bits(shifted) - as_bits(shift) + 127u) << 23);
    return x < -87.3f ? 0.0f : y;
}

/* log(1 + x) for x >= 0: the rounding of 1 + x is made up for. */
INLINE float logarithm_of_one_plus(float x) {
    const float u = 1.0f + x, lost = x - (u - 1.0f);
    const int32_t k = (int32_t)(as_bits(u) - 0x3f3504f3u) >> 23;
    const float f = as_float(as_bits(u) - ((uint32_t)k << 23)) - 1.0f, square = f * f;
    float y = 7.0376836292e-2f;
    y = y * f - 1.1514610310e-1f;
    y = y * f + 1.1676998740e-1f;
    y = y * f - 1.2420140846e-1f;
    y = y * f + 1.4249322787e-1f;
    y = y * f - 1.6668057665e-1f;
    y = y * f + 2.0000714765e-1f;
    y = y * f - 2.4999993993e-1f;
    y = y * f + 3.3333331174e-1f;
    y = (f + (y * f * square - 0.5f * square)) + (float)k * -2.12194440e-4f;
    return (y + lost / u) + (float)k * 0.693359375f;
}

/* log((1 + x) / (1 - x)) for 0 <= x <= 1/3. */
INLINE float logarithm_of_quotient(float x) {
    const float square = x * x;
    float y = 1.0f / 13;
    y = y * square + 1.0f / 11;
    y = y * square + 1.0f / 9;
    y = y * square + 1.0f / 7;
    y = y * square + 1.0f / 5;
    y = y * square + 1.0f / 3;
    return 2.0f * x + 2.0f * x * (y * square);
}

/* x^exponent for 0 <= x <= 1 and exponent > 0, in float64, where no digit is lost in the product with the logarithm. */
INLINE float power(float x, float exponent) {
    const double wide = x;
    const int64_t k = (int64_t)(as_long_bits(wide) - 0x3fe6a09e667f3bcdull) >> 52;
    const double f = as_double(as_long_bits(wide) - ((uint64_t)k << 52));
    const double s = (f - 1.0) / (f + 1.0), z = s * s;
    double y = 1.0 / 13;
    y = y * z + 1.0 / 11;
    y = y * z + 1.0 / 9;
    y = y * z + 1.0 / 7;
    y = y * z + 1.0 / 5;
    y = y * z + 1.0 / 3;
    y = y * z + 1.0;
    const double product = exponent * ((double)(int32_t)k + y * s * 2.8853900817779268);
    const double shift = 6755399441055744.0, shifted = product + shift;
    const double r = (product - (shifted - shift)) * 0.69314718055994531;
    y = 1.0 / 362880;
    y = y * r + 1.0 / 40320;
    y = y * r + 1.0 / 5040;
    y = y * r + 1.0 / 720;
    y = y * r + 1.0 / 120;
    y = y * r + 1.0 / 24;
    y = y * r + 1.0 / 6;
    y = y * r + 0.5;
    y = (y * r + 1.0) * r + 1.0;
    y *= as_double((as_long_bits(shifted) - as_long_bits(shift) + 1023u) << 52);
    y = x == 0.0f || product < -149.0 ? 0.0 : y;
    return (float)y + (x - x); /* NaN stays NaN */
}

/* `out` = the value of each label's class. Comparing is faster than gathering, and the values are often the same. */
static void take(const Block *b, const float *values, int64_t classes, float *out) {
    const float first = values[0];
    LOOP out[i] = first;
    for (int64_t c = 1; c < classes; c++) {
        const float value = values[c];
        if (value == first) continue;
        LOOP {
            const float before = out[i]; /* read at every label, else the loop has a branch */
            out[i] = b->label[i] == (int32_t)c ? value : before;
        }
    }
}

/* Whether all classes have this exponent, for those whose powers are quick. */
static int all_are(const float *exponents, int64_t classes, float value) {
    for (int64_t c = 0; c < classes; c++)
        if (exponents[c] != value) return 0;
    return 1;
}

/* `out` = (1-p)^exponent; `exponent` is a buffer for that of each label. */
static void focal_factor(const Block *b, const float *exponents, int64_t classes, float *exponent, float *out) {
    take(b, exponents, classes, exponent);
    if (all_are(exponents, classes, 1.0f)) LOOP out[i] = b->miss[i];
    else if (all_are(exponents, classes, 2.0f)) LOOP out[i] = b->miss[i] * b->miss[i];
    else LOOP out[i] = exponent[i] == 0.0f ? 1.0f : power(b->miss[i], exponent[i]);
}

static const int64_t SIZES[] = {4, 8, 2, 1, 1, 2, 2, 4, 4, 8, 8};

/* Ask for memory before it is read: blocks are too short for the processor to foresee the next one. */
INLINE void prefetch(const Tensor *tensor, int64_t origin, int64_t n, int64_t size) {
    if (tensor->voxel != 1) return;
    const char *from = (const char *)tensor->data + origin * size;
    for (int64_t i = 0; i < n * size; i += 64) __builtin_prefetch(from + i, 0, 3);
}

#define COPY_LABELS(kind)                                                         \
    {                                                                             \
        const kind *from = (const kind *)pass->target.data + origin;              \
        if (step == 1) EACH b->raw[i] = (int64_t)from[i];                         \
        else for (int64_t i = 0; i < n; i++) b->raw[i] = (int64_t)from[i * step]; \
    }                                                                             \
    break;

#define COPY_FRACTIONS(kind)                                                              \
    {                                                                                     \
        const kind *from = (const kind *)pass->target.data + origin;                      \
        for (int64_t i = 0; i < n; i++) {                                                 \
            const kind value = from[i * step];                                            \
            b->raw[i] = value > -1e9f && value < 1e9f ? (int64_t)value : INT32_MIN;       \
            wrong += (kind)b->raw[i] != value;                                            \
        }                                                                                 \
    }                                                                                     \
    break;

/* Read labels, and which voxels count: those with the label of a class that is not ignored. Returns faults. */
static int read_labels(const Pass *pass, Block *b, int64_t sample, int64_t start, int64_t n, int64_t *counted) {
    const int64_t step = pass->target.voxel, origin = sample * pass->target.sample + start * step;
    const int64_t classes = pass->classes, ignores = pass->ignores, ignore_index = pass->ignore_index;
    int64_t wrong = 0, number = 0;
    prefetch(&pass->target, origin + BLOCK, BLOCK, SIZES[pass->target.type]);
    switch (pass->target.type) {
    case UINT8: COPY_LABELS(uint8_t)
    case INT8: COPY_LABELS(int8_t)
    case UINT16: COPY_LABELS(uint16_t)
    case INT16: COPY_LABELS(int16_t)
    case UINT32: COPY_LABELS(uint32_t)
    case INT32: COPY_LABELS(int32_t)
    case UINT64: COPY_LABELS(uint64_t)
    case INT64: COPY_LABELS(int64_t)
    case FLOAT64: COPY_FRACTIONS(double)
    default: COPY_FRACTIONS(float)
    }
    for (int64_t i = n; i < BLOCK; i++) b->raw[i] = -1;
    ADD(number) {
        const int64_t label = b->raw[i];
        const int32_t counts = label >= 0 && label < classes && !(ignores && label == ignore_index);
        b->label[i] = counts ? (int32_t)label : -1;
        b->weight[i] = counts ? 1.0f : 0.0f;
        number += counts;
    }
    if (number < n)
        for (int64_t i = 0; i < n; i++) wrong += b->label[i] < 0 && !(ignores && b->raw[i] == ignore_index);
    *counted += number;
    return wrong ? LABEL_FAULT : 0;
}

/* Whatever is in voxels that do not count, NaN included, must not get out. */
#define READ_LOGIT(value)                                          \
    {                                                              \
        x[i] = b->label[i] < 0 ? 0.0f : (value);                   \
        b->top[i] = x[i] > b->top[i] ? x[i] : b->top[i];                 \
    }

/* Read the labels, weights and logits of a block, and compute p, 1-p and -log p of the label. Returns faults. */
static int read_block(const Pass *pass, Block *b, int64_t sample, int64_t start, int64_t n, int64_t *counted) {
    const int64_t classes = pass->classes;
    int faults = read_labels(pass, b, sample, start, n, counted);
    if (pass->weight.data) {
        const int64_t apart = pass->weight.voxel;
        const float *from = (const float *)pass->weight.data + sample * pass->weight.sample + start * apart;
        for (int64_t i = 0; i < n; i++) {
            const float raw = from[i * apart];
            const int inside = pass->tube && raw < 0.0f;
            const float weight = inside ? -raw : raw;
            b->tube[i] = inside ? 1.0f : 0.0f;
            faults |= weight >= 0.0f && weight <= FLT_MAX ? 0 : WEIGHT_FAULT;
            b->weight[i] = b->label[i] < 0 ? 0.0f : weight;
        }
        for (int64_t i = n; i < BLOCK; i++) b->tube[i] = 0.0f;
    }

    const Tensor *logits = &pass->logits;
    float *others = b->others;
    const int64_t origin = sample * logits->sample + start * logits->voxel;
    LOOP b->top[i] = -INFINITY;
    for (int64_t i = n; i < BLOCK; i++) b->top[i] = 0.0f;
    for (int64_t c = 0; c < classes; c++) {
        float *x = others + c * ROW;
        const int64_t first = origin + c * logits->channel, step = logits->voxel;
        if (logits->type == FLOAT32) {
            const float *from = (const float *)logits->data + first;
            if (step == 1) EACH READ_LOGIT(from[i])
            else EACH READ_LOGIT(from[i * step])
        } else {
            const uint16_t *from = (const uint16_t *)logits->data + first;
            EACH READ_LOGIT(as_float((uint32_t)from[i * step] << 16))
        }
        for (int64_t i = n; i < BLOCK; i++) x[i] = 0.0f;
    }
    LOOP b->chosen[i] = b->own[i] = b->rest[i] = 0.0f;
    for (int64_t c = 0; c < classes; c++) {
        float *x = others + c * ROW;
        prefetch(logits, origin + c * logits->channel + BLOCK, BLOCK, SIZES[logits->type]);
        LOOP {
            const float difference = x[i] - b->top[i], e = exponential(difference);
            const int here = b->label[i] == (int32_t)c;
            b->chosen[i] = here ? difference : b->chosen[i];
            b->own[i] = here ? e : b->own[i];
            x[i] = here ? 0.0f : e;
            b->rest[i] += here ? 0.0f : e;
        }
    }
    LOOP {
        const float surprise = logarithm_of_one_plus((b->own[i] - 1.0f) + b->rest[i]) - b->chosen[i];
        const float scale = 1.0f / (b->rest[i] + b->own[i]);
        b->surprise[i] = surprise > FLT_MAX / 2 ? FLT_MAX / 2 : surprise;
        b->scale[i] = scale;
        b->hit[i] = b->own[i] * scale;
        b->miss[i] = b->rest[i] * scale;
    }
    return faults;
}

/* Read the logits of class c of a block whose labels were read: 0 where a voxel does not count, as whatever is there,
   NaN included, must not get out. */
static void read_channel(const Pass *pass, const Block *b, int64_t sample, int64_t start, int64_t n, int64_t c,
                         float *x) {
    const Tensor *logits = &pass->logits;
    const int64_t step = logits->voxel, origin = sample * logits->sample + c * logits->channel + start * step;
    prefetch(logits, origin + BLOCK, BLOCK, SIZES[logits->type]);
    if (logits->type == FLOAT32) {
        const float *from = (const float *)logits->data + origin;
        if (step == 1) EACH x[i] = b->label[i] < 0 ? 0.0f : from[i];
        else EACH x[i] = b->label[i] < 0 ? 0.0f : from[i * step];
    } else {
        const uint16_t *from = (const uint16_t *)logits->data + origin;
        EACH x[i] = b->label[i] < 0 ? 0.0f : as_float((uint32_t)from[i * step] << 16);
    }
    for (int64_t i = n; i < BLOCK; i++) x[i] = 0.0f;
}

#define READ_NUMBERS(kind)                                                       \
    {                                                                            \
        const kind *from = (const kind *)regions->data + origin;                 \
        if (step == 1) EACH index[i] = (int32_t)from[i];                         \
        else for (int64_t i = 0; i < n; i++) index[i] = (int32_t)from[i * step]; \
    }

/* Read the places of the regions that the voxels of a block lie in, in map `map` of `maps`. */
static void read_map(const Pass *pass, int64_t sample, int64_t start, int64_t n, int64_t map, int64_t maps,
                     int32_t *index) {
    const Tensor *regions = &pass->regions;
    const int64_t step = regions->voxel, origin = sample * regions->sample + map * regions->channel + start * step;
    const int32_t offset = (int32_t)pass->offsets[sample * maps + map];
    prefetch(regions, origin + BLOCK, BLOCK, SIZES[regions->type]);
    if (regions->type == INT32) READ_NUMBERS(int32_t)
    else READ_NUMBERS(int64_t)
    for (int64_t i = n; i < BLOCK; i++) index[i] = 0;
    LOOP index[i] += offset;
}

/* Add `values` by label to a row of sums. */
static void add_by_label(const Block *b, const float *values, int64_t classes, double *row) {
    for (int64_t c = 0; c < classes; c++) {
        float sum = 0.0f;
        ADD(sum) {
            const float value = values[i]; /* read at every label, as in `take` */
            sum += b->label[i] == (int32_t)c ? value : 0.0f;
        }
        row[c] += sum;
    }
}

static Block *new_block(int64_t rows) { return aligned_alloc(64, sizeof(Block) + (size_t)rows * ROW * sizeof(float)); }

typedef struct { int64_t sample, start, stop; } Part;

/* The blocks of a part, which begin at `start` and have n voxels. */
#define EACH_BLOCK(part) \
    for (int64_t start = part.start, n; \
         n = part.stop - start < BLOCK ? part.stop - start : BLOCK, n > 0; start += BLOCK)

static Part part_of(const Pass *pass, int64_t number) {
    const int64_t parts = (pass->voxels + pass->part - 1) / pass->part, start = number % parts * pass->part;
    const int64_t stop = start + pass->part;
    return (Part){number / parts, start, stop < pass->voxels ? stop : pass->voxels};
}
