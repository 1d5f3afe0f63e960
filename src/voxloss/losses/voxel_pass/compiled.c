/* The pass over the voxels for softmax against labels, in one loop that stays in cache.

   Rows and symbols are those of kernels.py, and the formulas too, where they are explained. Every call does one part
   of one sample and writes sums of its own, so that results depend neither on the number of threads nor on their
   order. No function of libm: theirs do not vectorise. */

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
enum { TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE, FOCAL };
enum { LANES = 4 };
enum { TUBE = 2 }; /* how many rows there are of a tube */

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

static Part part_of(const Pass *pass, int64_t number) {
    const int64_t parts = (pass->voxels + pass->part - 1) / pass->part, start = number % parts * pass->part;
    const int64_t stop = start + pass->part;
    return (Part){number / parts, start, stop < pass->voxels ? stop : pass->voxels};
}

static int64_t before_tube(const Pass *pass) { return FOCAL + pass->exponent_count + (pass->squared ? 1 : 0); }

static int64_t before_hardest(const Pass *pass) { return before_tube(pass) + (pass->tube ? TUBE : 0); }

static int64_t before_bins(const Pass *pass) { return before_hardest(pass) + pass->hardest; }

static int64_t bins_of(const Pass *pass) {
    int64_t sum = 0;
    for (int64_t k = 0; k < pass->bin_count; k++) sum += pass->bins[k];
    return sum;
}

static int64_t rows_of(const Pass *pass) { return before_bins(pass) + 2 * bins_of(pass); }

/* The shares in which the voxels of a block belong to a selection. */
static void read_shares(const Pass *pass, int64_t selection, int64_t sample, int64_t start, int64_t n, float *out) {
    const Tensor *shares = &pass->shares;
    const int64_t step = shares->voxel, origin = sample * shares->sample + selection * shares->channel + start * step;
    const float *from = (const float *)shares->data + origin;
    prefetch(shares, origin + BLOCK, BLOCK, sizeof(float));
    if (step == 1) EACH out[i] = from[i];
    else for (int64_t i = 0; i < n; i++) out[i] = from[i * step];
    for (int64_t i = n; i < BLOCK; i++) out[i] = 0.0f;
}

/* Add the sums of a block that was read. What was read of it is overwritten. */
static void add_sums(const Pass *pass, Block *b, int64_t sample, int64_t start, int64_t n, double *rows) {
    const int64_t classes = pass->classes;
    for (int64_t k = 0; k < pass->exponent_count; k++) {
        const float *exponents = pass->exponents + k * classes;
        if (all_are(exponents, classes, 0.0f)) {
            LOOP b->first[i] = b->surprise[i] * b->weight[i];
        } else {
            focal_factor(b, exponents, classes, b->second, b->first);
            LOOP b->first[i] *= b->surprise[i] * b->weight[i];
        }
        add_by_label(b, b->first, classes, rows + (FOCAL + k) * classes);
    }
    for (int64_t k = 0; k < pass->hardest; k++) {
        read_shares(pass, k, sample, start, n, b->first);
        LOOP b->first[i] *= b->surprise[i] * b->weight[i];
        add_by_label(b, b->first, classes, rows + (before_hardest(pass) + k) * classes);
    }
    if (pass->squared) { /* p-t is p, and of the label's class -(1-p) */
        double *squared = rows + (FOCAL + pass->exponent_count) * classes;
        LOOP {
            b->first[i] = 0.5f * b->miss[i] * b->miss[i] * b->weight[i];
            b->second[i] = 0.5f * b->scale[i] * b->scale[i] * b->weight[i];
        }
        add_by_label(b, b->first, classes, squared);
        for (int64_t c = 0; c < classes; c++) {
            const float *others = b->others + c * ROW;
            float sum = 0.0f;
            ADD(sum) sum += others[i] * others[i] * b->second[i];
            squared[c] += sum;
        }
    }
    LOOP {
        b->hit[i] *= b->weight[i];
        b->miss[i] *= b->weight[i];
        b->scale[i] *= b->weight[i];
    }
    add_by_label(b, b->hit, classes, rows + TRUE_POSITIVE * classes);
    add_by_label(b, b->miss, classes, rows + FALSE_NEGATIVE * classes);
    if (pass->tube) {
        double *tube = rows + before_tube(pass) * classes;
        LOOP b->first[i] = b->hit[i] * b->tube[i];
        LOOP b->second[i] = b->miss[i] * b->tube[i];
        add_by_label(b, b->first, classes, tube);
        add_by_label(b, b->second, classes, tube + classes);
    }
    for (int64_t c = 0; c < classes; c++) {
        const float *others = b->others + c * ROW;
        float sum = 0.0f;
        ADD(sum) sum += others[i] * b->scale[i];
        rows[FALSE_POSITIVE * classes + c] += sum;
    }
}

/* p of class c in `p`, p-t in `difference`, and in `bin` the number of the bin that p lies in. */
static void read_bins(const Block *b, int64_t c, int64_t number, float *p, float *difference, int32_t *bin) {
    const float *others = b->others + c * ROW;
    const float bins = (float)number;
    const int32_t last = (int32_t)number - 1;
    LOOP {
        const int here = b->label[i] == (int32_t)c;
        p[i] = here ? b->hit[i] : others[i] * b->scale[i];
        difference[i] = here ? -b->miss[i] : p[i];
        /* Bins have their upper borders; of NaN and 0 it is the first one. */
        const float place = p[i] * bins;
        const int32_t whole = place > 0.0f ? (int32_t)place : 0;
        const int32_t below = whole - ((float)whole == place ? 1 : 0);
        bin[i] = below < 0 ? 0 : below > last ? last : below;
    }
}

/* A sum of p-t and one of the weights. */
typedef double Pair __attribute__((vector_size(2 * sizeof(double))));

/* Add the sums over the bins of a block that was read to `table`, (classes, bins, LANES). Voxels in turn add to sums of
   their own: most lie in one bin, and would wait for each other. */
static void add_bins(const Pass *pass, Block *b, Pair *table) {
    _Alignas(64) int32_t bin[BLOCK];
    for (int64_t c = 0; c < pass->classes; c++)
        for (int64_t k = 0; k < pass->bin_count; k++) {
            read_bins(b, c, pass->bins[k], b->first, b->second, bin);
            LOOP b->second[i] *= b->weight[i];
            for (int64_t i = 0; i < BLOCK; i++)
                table[bin[i] * LANES + i % LANES] += (Pair){b->second[i], b->weight[i]};
            table += pass->bins[k] * LANES;
        }
}

/* Add the lanes of `table` to the rows. */
static void add_lanes(const Pass *pass, const Pair *table, double *rows) {
    const int64_t classes = pass->classes;
    for (int64_t c = 0; c < classes; c++) {
        double *row = rows + before_bins(pass) * classes + c;
        for (int64_t k = 0; k < pass->bin_count; k++) {
            const int64_t bins = pass->bins[k];
            for (int64_t place = 0; place < bins * LANES; place++) {
                row[place / LANES * classes] += table[place][0];
                row[(bins + place / LANES) * classes] += table[place][1];
            }
            table += bins * LANES;
            row += 2 * bins * classes;
        }
    }
}

/* From the slopes of the sums over bins those of every p of a block that was read, (classes, ROW), added to `own` where
   it is the label's. */
static void read_bin_slopes(const Pass *pass, Block *b, const float *upstream, float *own, float *slopes) {
    const int64_t classes = pass->classes;
    _Alignas(64) int32_t bin[BLOCK];
    for (int64_t c = 0; c < classes; c++) {
        const float *row = upstream + before_bins(pass) * classes + c;
        float *slope = slopes + c * ROW;
        LOOP slope[i] = 0.0f;
        for (int64_t k = 0; k < pass->bin_count; k++) {
            read_bins(b, c, pass->bins[k], b->first, b->second, bin);
            LOOP slope[i] += row[bin[i] * classes];
            row += 2 * pass->bins[k] * classes;
        }
        LOOP own[i] += b->label[i] == (int32_t)c ? slope[i] : 0.0f;
    }
}

/* From the slopes of the sums to what the gradient of a block that was read is computed from: in `chosen` that of the
   label's class, in `rest` and `scale` what those of the others need, in `second` the scale without the weight, in
   `of_bins` the slopes of every p, NULL where there are no bins. */
static void read_slopes(const Pass *pass, Block *b, int64_t sample, int64_t start, int64_t n, const float *upstream,
                        float *of_bins) {
    const int64_t classes = pass->classes;
    const float *label = upstream + TRUE_POSITIVE * classes, *other = upstream + FALSE_POSITIVE * classes;
    float *own = b->own, *mean = b->rest, *at_label = b->chosen;
    take(b, label, classes, own);
    if (pass->tube) {
        take(b, upstream + before_tube(pass) * classes, classes, b->third);
        LOOP own[i] += b->third[i] * b->tube[i];
    }
    const float *squared = pass->squared ? upstream + (FOCAL + pass->exponent_count) * classes : NULL;
    if (squared) {
        take(b, squared, classes, b->third);
        LOOP own[i] -= b->third[i] * b->miss[i];
    }
    if (of_bins) read_bin_slopes(pass, b, upstream, own, of_bins);
    LOOP own[i] *= b->hit[i];
    for (int64_t k = 0; k < pass->exponent_count; k++) {
        const float *exponents = pass->exponents + k * classes, *focal = upstream + (FOCAL + k) * classes;
        take(b, focal, classes, b->third);
        if (all_are(exponents, classes, 0.0f)) {
            LOOP own[i] -= b->third[i];
            continue;
        }
        focal_factor(b, exponents, classes, b->second, b->first);
        LOOP {
            const float miss = b->miss[i] > FLT_MIN || b->miss[i] != b->miss[i] ? b->miss[i] : FLT_MIN;
            const float exponent = b->second[i], quotient = b->surprise[i] / miss * b->hit[i];
            const float slope = exponent == 0.0f ? 1.0f : b->first[i] * (exponent * quotient + 1.0f);
            own[i] -= slope * b->third[i];
        }
    }
    for (int64_t k = 0; k < pass->hardest; k++) {
        take(b, upstream + (before_hardest(pass) + k) * classes, classes, b->third);
        read_shares(pass, k, sample, start, n, b->first);
        LOOP own[i] -= b->first[i] * b->third[i];
    }
    LOOP mean[i] = 0.0f;
    for (int64_t c = 0; c < classes; c++) {
        const float *others = b->others + c * ROW;
        if (squared) LOOP mean[i] += others[i] * (other[c] + squared[c] * others[i] * b->scale[i]);
        else LOOP mean[i] += others[i] * other[c];
        if (of_bins) LOOP mean[i] += others[i] * of_bins[c * ROW + i];
    }
    LOOP {
        const float mean_other = mean[i] * b->scale[i];
        at_label[i] = (own[i] * b->miss[i] - b->hit[i] * mean_other) * b->weight[i];
        mean[i] = own[i] + mean_other;
        b->second[i] = b->scale[i];
        b->scale[i] *= b->weight[i];
    }
}

/* Write `value`, an expression of i, as the gradient of class c of a block. */
#define WRITE_GRADIENT(value)                                                                            \
    {                                                                                                    \
        const Tensor *gradient = &pass->gradient;                                                        \
        const int64_t step = gradient->voxel;                                                            \
        const int64_t origin = part.sample * gradient->sample + c * gradient->channel + start * step;    \
        prefetch(gradient, origin + BLOCK, BLOCK, SIZES[gradient->type]);                                \
        if (gradient->type == FLOAT32) {                                                                 \
            float *to = (float *)gradient->data + origin;                                                \
            if (step == 1) EACH to[i] = (value);                                                         \
            else EACH to[i * step] = (value);                                                            \
        } else {                                                                                         \
            uint16_t *to = (uint16_t *)gradient->data + origin;                                          \
            EACH to[i * step] = bfloat16(value);                                                         \
        }                                                                                                \
    }

/* -log p of the label times the weight, as whole numbers of the same order, -1 where a voxel does not count. */
int voxloss_surprise(const Pass *pass, int64_t number) {
    const Part part = part_of(pass, number);
    Block *b = new_block(pass->classes);
    if (!b) return NO_MEMORY;
    int64_t counted = 0;
    for (int64_t start = part.start; start < part.stop; start += BLOCK) {
        const int64_t n = part.stop - start < BLOCK ? part.stop - start : BLOCK;
        read_block(pass, b, part.sample, start, n, &counted);
        int32_t *to = pass->bits + part.sample * pass->voxels + start;
        EACH to[i] = b->label[i] < 0 ? -1 : (int32_t)(as_bits(b->surprise[i] * b->weight[i]) & 0x7fffffffu);
    }
    free(b);
    return 0;
}

/* The errors of every class, 1-p of its voxels and p of the others, as keys in the order of order.c; of two classes those of
   class 1, which class 0 has too. */
int voxloss_errors(const Pass *pass, int64_t number) {
    const Part part = part_of(pass, number);
    const int64_t first = pass->classes == 2, own = pass->classes - first;
    Block *b = new_block(pass->classes);
    if (!b) return NO_MEMORY;
    int64_t counted = 0;
    for (int64_t start = part.start; start < part.stop; start += BLOCK) {
        const int64_t n = part.stop - start < BLOCK ? part.stop - start : BLOCK;
        read_block(pass, b, part.sample, start, n, &counted);
        for (int64_t c = first; c < pass->classes; c++) {
            const float *others = b->others + c * ROW;
            int32_t *to = pass->bits + (part.sample * own + c - first) * pass->voxels + start;
            EACH {
                const int here = b->label[i] == (int32_t)c;
                const float error = here ? b->miss[i] : others[i] * b->scale[i];
                const uint32_t bits = error == error ? as_bits(error) << 1 : 0xff800000u; /* of the only NaN */
                to[i] = (int32_t)(b->label[i] < 0 ? UINT32_MAX : bits | (uint32_t)here);
            }
        }
    }
    free(b);
    return 0;
}

/* The gradient of the sums of every p times its share, the shares of the last classes; `upstream` is (samples, classes). */
int voxloss_gradient_of_shares(const Pass *pass, int64_t number) {
    const Part part = part_of(pass, number);
    const int64_t classes = pass->classes, first = classes - pass->hardest;
    const Tensor *logits = &pass->logits;
    const float *upstream = pass->upstream + part.sample * classes;
    Block *b = new_block(2 * classes);
    if (!b) return NO_MEMORY;
    for (int64_t start = part.start; start < part.stop; start += BLOCK) {
        const int64_t n = part.stop - start < BLOCK ? part.stop - start : BLOCK, step = logits->voxel;
        LOOP {
            b->top[i] = -INFINITY;
            b->rest[i] = b->own[i] = b->chosen[i] = 0.0f;
        }
        for (int64_t c = 0; c < classes; c++) {
            float *x = b->others + c * ROW;
            const int64_t origin = part.sample * logits->sample + c * logits->channel + start * step;
            const float *from = (const float *)logits->data + origin;
            prefetch(logits, origin + BLOCK, BLOCK, sizeof(float));
            if (step == 1) EACH x[i] = from[i];
            else EACH x[i] = from[i * step];
            for (int64_t i = n; i < BLOCK; i++) x[i] = 0.0f;
            LOOP b->top[i] = x[i] > b->top[i] ? x[i] : b->top[i];
        }
        /* Slopes beside that of the likeliest class give the same gradient, but lose no digit where its p is almost 1. */
        for (int64_t c = 0; c < classes; c++) {
            const float *x = b->others + c * ROW;
            float *slope = b->others + (classes + c) * ROW;
            const float above = upstream[c];
            if (c >= first) read_shares(pass, c - first, part.sample, start, n, slope);
            else LOOP slope[i] = 0.0f;
            LOOP {
                slope[i] *= above;
                b->chosen[i] = x[i] == b->top[i] ? slope[i] : b->chosen[i];
            }
        }
        for (int64_t c = 0; c < classes; c++) {
            float *x = b->others + c * ROW, *slope = b->others + (classes + c) * ROW;
            LOOP {
                x[i] = exponential(x[i] - b->top[i]);
                b->rest[i] += x[i];
                slope[i] = (slope[i] - b->chosen[i]) * x[i];
                b->own[i] += slope[i];
            }
        }
        LOOP {
            b->scale[i] = 1.0f / b->rest[i];
            b->own[i] *= b->scale[i];
        }
        for (int64_t c = 0; c < classes; c++) {
            const float *x = b->others + c * ROW, *slope = b->others + (classes + c) * ROW;
            LOOP b->first[i] = (slope[i] - x[i] * b->own[i]) * b->scale[i];
            WRITE_GRADIENT(b->first[i])
        }
    }
    free(b);
    return 0;
}

/* Count the values of the 16 bits from `shift` on, of numbers that are not negative and whose bits above are `above`. */
void voxloss_digits(const int32_t *numbers, int64_t n, int64_t shift, int64_t above, int64_t *counts) {
    const int32_t top = shift + 16 == 32;
    for (int64_t i = 0; i < n; i++) {
        const int32_t number = numbers[i], digit = number >> shift;
        if (top ? number >= 0 : digit >> 16 == (int32_t)above) counts[digit & 0xffff]++;
    }
}

/* 1 for numbers above the border, `share` for those at it, 0 for the others. */
void voxloss_shares(const int32_t *numbers, int64_t n, int64_t border, double share, float *out) {
    const int32_t limit = (int32_t)border;
    const float at_border = (float)share;
    EACH {
        const float above = numbers[i] > limit ? 1.0f : 0.0f;
        out[i] = numbers[i] == limit ? at_border : above;
    }
}

enum { LESION_SUMS = 4 };

/* The class against the rest, as the losses per lesion take each of them: 1-p of the likeliest class has no digits left
   where its p is almost 1, so that it comes from the other classes. `likeliest` is the e of this class, which is 1;
   where several have it, none needs this care, and it is a number that no class has. */
typedef struct {
    _Alignas(64) float likeliest[BLOCK], surprise[BLOCK], rest[BLOCK];
    int32_t index[BLOCK + 2]; /* the last one is read, as two are at once, and does not count */
} Rivals;

/* Voxels whose sums stay in a register while all classes are read. */
#if defined(__AVX512F__)
enum { WIDTH = 16 };
#elif defined(__AVX__)
enum { WIDTH = 8 };
#else
enum { WIDTH = 4 };
#endif
typedef float Floats __attribute__((vector_size(WIDTH * sizeof(float))));
typedef int32_t Numbers __attribute__((vector_size(WIDTH * sizeof(int32_t))));

#define READ_RIVAL(value)                                                                            \
    {                                                                                                \
        const float logit = b->label[i] < 0 ? 0.0f : (value);                                        \
        x[i] = logit == b->top[i] && r->likeliest[i] == 1.0f ? -INFINITY : logit;                    \
        second[i] = x[i] > second[i] ? x[i] : second[i];                                             \
    }

/* -log(1-p) of the likeliest class, and the softmax of all others, where these are too small beside it. */
static void read_far_rivals(const Pass *pass, const Block *b, int64_t sample, int64_t start, int64_t n, Rivals *r,
                            float *shares) {
    const Tensor *logits = &pass->logits;
    const int64_t step = logits->voxel;
    float second[BLOCK];
    LOOP second[i] = -FLT_MAX; /* a class masked by -inf is far behind, but inf - inf would be NaN */
    for (int64_t c = 0; c < pass->classes; c++) {
        float *x = shares + c * ROW;
        const int64_t first = sample * logits->sample + start * step + c * logits->channel;
        if (logits->type == FLOAT32) {
            const float *from = (const float *)logits->data + first;
            EACH READ_RIVAL(from[i * step])
        } else {
            const uint16_t *from = (const uint16_t *)logits->data + first;
            EACH READ_RIVAL(as_float((uint32_t)from[i * step] << 16))
        }
        for (int64_t i = n; i < BLOCK; i++) x[i] = 0.0f;
    }
    LOOP r->rest[i] = 0.0f;
    for (int64_t c = 0; c < pass->classes; c++) {
        float *x = shares + c * ROW;
        LOOP {
            x[i] = exponential(x[i] - second[i]);
            r->rest[i] += x[i];
        }
    }
    LOOP {
        const float rest = r->rest[i] < 1.0f ? 1.0f : r->rest[i]; /* the second class adds 1, unless it is masked */
        const float odds = b->top[i] - second[i] - logarithm_of_one_plus(rest - 1.0f);
        const float small = exponential(odds < 0.0f ? odds : -odds);
        const float surprise = (odds < 0.0f ? 0.0f : odds) + logarithm_of_one_plus(small);
        r->surprise[i] = surprise > FLT_MAX / 2 ? FLT_MAX / 2 : surprise;
        r->rest[i] = 1.0f / rest;
    }
    for (int64_t c = 0; c < pass->classes; c++) {
        float *x = shares + c * ROW;
        LOOP x[i] *= r->rest[i];
    }
}

/* Of a block that was read: the likeliest class, its -log(1-p), and 1 / the sum of the e of all others. Where these are
   too small, the softmax of the others is in `shares`, (classes, ROW), and 1 is returned. */
static int read_rivals(const Pass *pass, const Block *b, int64_t sample, int64_t start, int64_t n, Rivals *r,
                       float *shares) {
    for (int64_t i = 0; i < BLOCK; i += WIDTH) {
        Floats e = *(const Floats *)(b->own + i);
        Numbers equal = e == 1.0f, found = equal; /* -1 where it is so */
        Floats rest = (Floats)((Numbers)e & ~equal);
        for (int64_t c = 0; c < pass->classes; c++) {
            e = *(const Floats *)(b->others + c * ROW + i);
            equal = e == 1.0f;
            found += equal;
            rest += (Floats)((Numbers)e & ~equal);
        }
        const Numbers one = found == -1;
        *(Floats *)(r->rest + i) = rest;
        *(Numbers *)(r->likeliest + i) = (one & 0x3f800000) | (~one & 0x40000000); /* 1 or 2 */
    }
    int64_t far = 0;
    ADD(far) far += r->rest[i] < 1e-30f;
    if (far) {
        read_far_rivals(pass, b, sample, start, n, r, shares);
        return 1;
    }
    LOOP {
        r->rest[i] = 1.0f / r->rest[i];
        r->surprise[i] = logarithm_of_one_plus(r->rest[i]);
    }
    return 0;
}

#define READ_REGIONS(kind)                                              \
    {                                                                   \
        const kind *from = (const kind *)regions->data + origin;        \
        if (step == 1) EACH index[i] = (int32_t)from[i];                \
        else for (int64_t i = 0; i < n; i++) index[i] = (int32_t)from[i * step]; \
    }

/* Twice the place of each voxel's region for class c, and one more in a lesion of it, which are the voxels of this label;
   -1 for a voxel that does not count. After the block is a number that none has. */
static void read_regions(const Pass *pass, const Block *b, int64_t sample, int64_t start, int64_t n, int64_t c,
                         int32_t *index) {
    const Tensor *regions = &pass->regions;
    const int64_t step = regions->voxel, origin = sample * regions->sample + (c - 1) * regions->channel + start * step;
    prefetch(regions, origin + BLOCK, BLOCK, SIZES[regions->type]);
    const int32_t offset = (int32_t)pass->offsets[sample * (pass->classes - 1) + c - 1];
    if (regions->type == INT32) READ_REGIONS(int32_t)
    else READ_REGIONS(int64_t)
    for (int64_t i = n; i < BLOCK; i++) index[i] = 0;
    LOOP index[i] = b->label[i] < 0 ? -1 : 2 * (offset + index[i]) + (b->label[i] == (int32_t)c);
    index[BLOCK] = INT32_MIN;
}

/* Numbers of 32 bits that are read at once, anywhere. */
typedef uint64_t Two __attribute__((may_alias, aligned(4)));
typedef float Four __attribute__((vector_size(16), may_alias, aligned(4)));

/* For every region of every class but 0, inside and outside its lesion, add the sums of p, of 1-p in lesions, of -log p in
   lesions and -log(1-p) outside, and the number of voxels. */
static void add_lesions(const Pass *pass, Block *b, int64_t sample, int64_t start, int64_t n, double *table) {
    const int two = pass->classes == 2; /* where 1-p is the p of the other class, which is the label's */
    _Alignas(64) Rivals r;
    _Alignas(64) float terms[2 * BLOCK + 2]; /* p and -log p in turns */
    if (!two) read_rivals(pass, b, sample, start, n, &r, b->others + pass->classes * ROW);
    for (int64_t c = 1; c < pass->classes; c++) {
        const float *others = b->others + c * ROW;
        read_regions(pass, b, sample, start, n, c, r.index);
        if (two) LOOP b->third[i] = b->surprise[i];
        else LOOP { /* 1-p is at least 1/2, but for the likeliest class */
            const float e = others[i], other = logarithm_of_quotient(e / (2.0f * (b->rest[i] + b->own[i]) - e));
            const float of_others = e == r.likeliest[i] ? r.surprise[i] : other;
            b->third[i] = b->label[i] == (int32_t)c ? b->surprise[i] : of_others;
        }
        LOOP { /* of the label's class, `others` is 0 */
            const float hit = b->label[i] == (int32_t)c ? b->hit[i] : 0.0f;
            terms[2 * i] = (others[i] * b->scale[i] + hit) * b->weight[i];
            terms[2 * i + 1] = b->third[i] * b->weight[i];
        }
        /* Voxels of a region lie in rows. They are compared and added up two by two, and every other two to a sum of
           their own, as a sum waits for the one before. */
        for (int64_t i = 0; i < n;) {
            const int32_t at = r.index[i];
            const Two both = (uint32_t)at | (uint64_t)(uint32_t)at << 32;
            const int64_t first = i;
            Four sum = {0.0f}, next = {0.0f};
            for (; *(const Two *)(r.index + i) == both; i += 2) {
                sum += *(const Four *)(terms + 2 * i);
                i += 2;
                if (*(const Two *)(r.index + i) != both) break;
                next += *(const Four *)(terms + 2 * i);
            }
            /* One more in half of the rows, so that a branch would often be foreseen wrongly. */
            const int64_t odd = r.index[i] == at;
            const Two one_more = *(const Two *)(terms + 2 * i) & -(Two)odd;
            float last[2], missed = 0.0f;
            memcpy(last, &one_more, sizeof(last));
            i += odd;
            if (at < 0) continue;
            double *sums = table + (int64_t)at * LESION_SUMS;
            sum += next;
            sums[0] += last[0] + sum[0] + sum[2];
            sums[2] += last[1] + sum[1] + sum[3];
            sums[3] += (double)(i - first);
            if (at % 2 == 0) continue;
            for (int64_t k = first; k < i; k++) missed += b->miss[k] * b->weight[k];
            sums[1] += missed;
        }
    }
}

/* The slopes of the voxels of a block: with respect to p, and to the third sum. Both are copied at once, and as from a
   volatile table one voxel after the other: what compilers make of it with vectors takes twice as long. */
static void read_lesion_slope(const Pass *pass, int32_t *index, float *of_p, float *of_surprise) {
    const volatile Two *of_lesions = (const volatile Two *)pass->of_lesions;
    _Alignas(64) Two pairs[BLOCK];
    const float *values = (const float *)pairs;
    LOOP index[i] = index[i] < 0 ? 0 : index[i];
    for (int64_t i = 0; i < BLOCK; i += 4) {
        pairs[i] = of_lesions[index[i]];
        pairs[i + 1] = of_lesions[index[i + 1]];
        pairs[i + 2] = of_lesions[index[i + 2]];
        pairs[i + 3] = of_lesions[index[i + 3]];
    }
    LOOP {
        of_p[i] = values[2 * i];
        of_surprise[i] = values[2 * i + 1];
    }
}

/* Write into `slopes`, (classes, ROW), the gradient of a block that was read, with its weight; `rest` and `chosen` are
   overwritten.

   With the slope g_c of p_c and s_c of -log(1-p_c), of the classes with lesions but the label's own class o, and with
   v_c = s_c p_c / (1-p_c), but 0 for the likeliest class m, whose softmax of the others is q:

       d/dx_k = p_k (g_k + s_o - g_o p_o - sum_c (g_c p_c + v_c)) + v_k + [k = m] s_m p_m - [k != m] s_m p_m q_k
       d/dx_o = p_o (g_o (1-p_o) - sum_c (g_c p_c + v_c)) - s_o (1-p_o) - [o != m] s_m p_m q_o */
static void read_lesion_slopes(const Pass *pass, Block *b, int64_t sample, int64_t start, int64_t n, float *slopes) {
    const int64_t classes = pass->classes;
    float *shares = b->others + classes * ROW;
    float *all = b->first, *of_best = b->second, *slope = b->third, *own_slope = b->chosen, *own_surprise = b->rest;
    _Alignas(64) float of_p[BLOCK], of_surprise[BLOCK], total[BLOCK];
    _Alignas(64) Rivals r;
    if (classes == 2) { /* where 1-p is the p of the other class */
        read_regions(pass, b, sample, start, n, 1, r.index);
        read_lesion_slope(pass, r.index, of_p, of_surprise);
        LOOP {
            const float added = b->label[i] == 1 ? -of_surprise[i] : of_surprise[i];
            slopes[ROW + i] = b->miss[i] * (b->hit[i] * of_p[i] + added) * b->weight[i];
            slopes[i] = -slopes[ROW + i];
        }
        return;
    }
    const int far = read_rivals(pass, b, sample, start, n, &r, shares);
    LOOP {
        total[i] = b->rest[i] + b->own[i];
        all[i] = of_best[i] = own_slope[i] = own_surprise[i] = slopes[i] = 0.0f;
    }
    for (int64_t c = 1; c < classes; c++) {
        const float *others = b->others + c * ROW;
        float *kept = slopes + c * ROW;
        read_regions(pass, b, sample, start, n, c, r.index);
        read_lesion_slope(pass, r.index, of_p, of_surprise);
        LOOP { /* of the label's class, `others` is 0 */
            const float e = others[i], p = e * b->scale[i];
            const int here = b->label[i] == (int32_t)c, best = e == r.likeliest[i];
            const float share = best ? 0.0f : of_surprise[i] * e / (total[i] - e);
            const float of_likeliest = best ? of_surprise[i] * p : 0.0f;
            own_slope[i] += here ? of_p[i] : 0.0f;
            own_surprise[i] += here ? of_surprise[i] : 0.0f;
            all[i] += of_p[i] * p + share;
            of_best[i] += of_likeliest;
            kept[i] = of_p[i] * p + share + of_likeliest;
        }
    }
    LOOP {
        slope[i] = own_surprise[i] - own_slope[i] * b->hit[i] - all[i];
        own_slope[i] = b->hit[i] * (own_slope[i] * b->miss[i] - all[i]) - own_surprise[i] * b->miss[i];
        of_best[i] *= far ? 1.0f : r.rest[i];
    }
    for (int64_t c = 0; c < classes; c++) {
        const float *others = b->others + c * ROW, *share = far ? shares + c * ROW : total;
        float *result = slopes + c * ROW;
        if (!far) LOOP {
            const float own = b->own[i], e = b->label[i] == (int32_t)c ? own : others[i];
            total[i] = e == r.likeliest[i] ? 0.0f : e;
        }
        LOOP {
            const float other = others[i] * b->scale[i] * slope[i] + result[i], own = own_slope[i];
            result[i] = ((b->label[i] == (int32_t)c ? own : other) - of_best[i] * share[i]) * b->weight[i];
        }
    }
}

/* The sums of part `number`, and those of its lesions. */
int voxloss_sums(const Pass *pass, int64_t number) {
    const Part part = part_of(pass, number);
    const int64_t classes = pass->classes;
    double *rows = pass->sums ? pass->sums + number * rows_of(pass) * classes : NULL;
    double *lesions = pass->lesions ? pass->lesions + number * 2 * pass->places * LESION_SUMS : NULL;
    Block *b = new_block((lesions ? 2 : 1) * classes);
    const size_t size = rows && pass->bin_count ? (size_t)(classes * bins_of(pass) * LANES) * sizeof(Pair) : 0;
    Pair *table = size ? aligned_alloc(64, (size + 63) / 64 * 64) : NULL;
    if (!b || (size && !table)) {
        free(b);
        free(table);
        return NO_MEMORY;
    }
    if (table) memset(table, 0, size);
    int faults = 0;
    for (int64_t start = part.start; start < part.stop; start += BLOCK) {
        const int64_t n = part.stop - start < BLOCK ? part.stop - start : BLOCK;
        faults |= read_block(pass, b, part.sample, start, n, pass->counted + number);
        if (lesions) add_lesions(pass, b, part.sample, start, n, lesions);
        if (table) add_bins(pass, b, table);
        if (rows) add_sums(pass, b, part.sample, start, n, rows);
    }
    if (table) add_lanes(pass, table, rows);
    free(table);
    free(b);
    return faults;
}

/* The gradient of part `number`: that of its sums, and that of its lesions. */
int voxloss_gradient(const Pass *pass, int64_t number) {
    const Part part = part_of(pass, number);
    const int64_t classes = pass->classes;
    const float *upstream = pass->upstream ? pass->upstream + part.sample * rows_of(pass) * classes : NULL;
    const float *squared = upstream && pass->squared ? upstream + (FOCAL + pass->exponent_count) * classes : NULL;
    const int64_t rows = (pass->of_lesions ? 3 : 1) * classes;
    Block *b = new_block(rows + (pass->bin_count ? classes : 0));
    if (!b) return NO_MEMORY;
    float *slopes = pass->of_lesions ? b->others + 2 * classes * ROW : NULL;
    float *of_bins = upstream && pass->bin_count ? b->others + rows * ROW : NULL;
    for (int64_t start = part.start; start < part.stop; start += BLOCK) {
        const int64_t n = part.stop - start < BLOCK ? part.stop - start : BLOCK;
        int64_t counted = 0;
        read_block(pass, b, part.sample, start, n, &counted);
        if (slopes) read_lesion_slopes(pass, b, part.sample, start, n, slopes);
        if (upstream) read_slopes(pass, b, part.sample, start, n, upstream, of_bins);
        for (int64_t c = 0; c < classes; c++) {
            const float *others = b->others + c * ROW, *mean = b->rest, *at_label = b->chosen;
            if (!upstream) {
                WRITE_GRADIENT(slopes[c * ROW + i])
                continue;
            }
            const float above = upstream[FALSE_POSITIVE * classes + c];
            if (squared) {
                LOOP {
                    const float slope = above + squared[c] * others[i] * b->second[i];
                    b->first[i] = (slope - mean[i]) * others[i] * b->scale[i];
                }
            } else {
                LOOP b->first[i] = (above - mean[i]) * others[i] * b->scale[i];
            }
            if (of_bins) LOOP b->first[i] += of_bins[c * ROW + i] * others[i] * b->scale[i];
            if (slopes) {
                WRITE_GRADIENT((b->label[i] == (int32_t)c ? at_label[i] : b->first[i]) + slopes[c * ROW + i])
            } else {
                WRITE_GRADIENT(b->label[i] == (int32_t)c ? at_label[i] : b->first[i])
            }
        }
    }
    free(b);
    return 0;
}
