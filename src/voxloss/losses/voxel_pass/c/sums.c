/* The sums of the pass over the voxels, and its gradient, together with those of lesions where they are asked for. Rows are
   those of kernels.py. */

enum { TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE, FOCAL };
enum { TUBE = 2 }; /* how many rows there are of a tube */
enum { LANES = 4 };

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
    EACH_BLOCK(part) {
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
    EACH_BLOCK(part) {
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
    const float *upstream = pass->upstream + part.sample * classes;
    Block *b = new_block(2 * classes);
    if (!b) return NO_MEMORY;
    LOOP b->label[i] = 0; /* all count */
    EACH_BLOCK(part) {
        LOOP {
            b->top[i] = -INFINITY;
            b->rest[i] = b->own[i] = b->chosen[i] = 0.0f;
        }
        for (int64_t c = 0; c < classes; c++) {
            float *x = b->others + c * ROW;
            read_channel(pass, b, part.sample, start, n, c, x);
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
    EACH_BLOCK(part) {
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
    EACH_BLOCK(part) {
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
