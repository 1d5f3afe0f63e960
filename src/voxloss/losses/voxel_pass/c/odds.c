/* The sums over lesions where every class has a target of its own: sigmoid, or soft and multi-hot targets.

   It reads each class against the rest, as lesions/sums.py explains, in blocks like block.c, and like there every call
   does one part of one sample. */

typedef struct {
    Pass pass; /* `lesions` is (parts, 2 * places, ODDS_SUMS), and `of_lesions` (2 * places, SLOPES) */
    int64_t sigmoid, dense;
    int64_t by_channel; /* whether an ignored value takes its voxel out of its own channel alone */
} OddsPass;

enum { ODDS_SUMS = 5 }; /* of p·t, p·(1-t), (1-p)·t, t·(-log p) + (1-t)·(-log(1-p)), and the number of voxels */
enum { SLOPES = 4 };    /* with respect to the first four */

/* The target where a voxel does not count in one channel alone. */
#define IGNORED (-INFINITY)
#define MOST_ODDS (FLT_MAX / 4) /* a channel that is masked by a logit of -inf must not make inf·0 */

/* The rows in `others` of a block, each (classes, ROW): logits; targets, if they are dense; of a softmax exp(x - second),
   but 0 for the likeliest class, where `second` is the next logit; slopes. */
enum { LOGITS, TARGETS, SHARES, OF_LOGITS, KINDS };

/* What else is read of a block. Of a softmax `top` is the largest logit, `rest` the sum of the shares. */
typedef struct {
    int32_t best[BLOCK], index[BLOCK]; /* the likeliest class, and where the voxels of one class are summed (-1: nowhere) */
    float second[BLOCK], apart[BLOCK]; /* exp(second - top) */
    float log_sum[BLOCK];              /* log Σ exp(x - top) */
    float of_best[BLOCK];              /* -log(1-p) of the likeliest class */
    float p[BLOCK], q[BLOCK], own[BLOCK], other[BLOCK], target[BLOCK]; /* of one class: p, 1-p, -log p, -log(1-p), t */
} Odds;

INLINE float *row_of(const OddsPass *odds, Block *b, int64_t kind, int64_t c) {
    return b->others + (kind * odds->pass.classes + c) * ROW;
}

INLINE float limited(float odds) { return odds > MOST_ODDS ? MOST_ODDS : odds < -MOST_ODDS ? -MOST_ODDS : odds; }

#define COPY_TARGETS(kind)                                                 \
    {                                                                      \
        const kind *from = (const kind *)target->data + origin;            \
        if (step == 1) EACH t[i] = (float)from[i];                         \
        else for (int64_t i = 0; i < n; i++) t[i] = (float)from[i * step]; \
    }                                                                      \
    break;

/* Read the targets of every class, and which voxels count. */
static void read_targets(const OddsPass *odds, Block *b, int64_t sample, int64_t start, int64_t n) {
    const Pass *pass = &odds->pass;
    const Tensor *target = &pass->target;
    const int64_t step = target->voxel;
    const float ignored = (float)pass->ignore_index;
    for (int64_t i = 0; i < BLOCK; i++) {
        b->label[i] = i < n ? 0 : -1;
        b->weight[i] = 1.0f;
    }
    for (int64_t c = 0; c < pass->classes; c++) {
        const int64_t origin = sample * target->sample + c * target->channel + start * step;
        float *t = row_of(odds, b, TARGETS, c);
        prefetch(target, origin + BLOCK, BLOCK, SIZES[target->type]);
        switch (target->type) {
        case UINT8: COPY_TARGETS(uint8_t)
        case INT8: COPY_TARGETS(int8_t)
        case UINT16: COPY_TARGETS(uint16_t)
        case INT16: COPY_TARGETS(int16_t)
        case UINT32: COPY_TARGETS(uint32_t)
        case INT32: COPY_TARGETS(int32_t)
        case UINT64: COPY_TARGETS(uint64_t)
        case INT64: COPY_TARGETS(int64_t)
        case FLOAT64: COPY_TARGETS(double)
        default: COPY_TARGETS(float)
        }
        for (int64_t i = n; i < BLOCK; i++) t[i] = 0.0f;
        if (!pass->ignores) continue;
        if (odds->by_channel) LOOP t[i] = t[i] == ignored ? IGNORED : t[i];
        else LOOP b->label[i] = t[i] == ignored ? -1 : b->label[i];
    }
}

/* Read a block: targets, weights and logits; and of a softmax what all classes need. */
static void read_odds(const OddsPass *odds, Block *b, Odds *o, int64_t sample, int64_t start, int64_t n) {
    const Pass *pass = &odds->pass;
    const int64_t classes = pass->classes;
    int64_t counted = 0;
    if (odds->dense) read_targets(odds, b, sample, start, n);
    else read_labels(pass, b, sample, start, n, &counted);
    if (pass->weight.data) {
        const int64_t step = pass->weight.voxel;
        const float *from = (const float *)pass->weight.data + sample * pass->weight.sample + start * step;
        for (int64_t i = 0; i < n; i++) b->weight[i] = from[i * step];
    }
    LOOP b->weight[i] = b->label[i] < 0 ? 0.0f : b->weight[i];

    for (int64_t c = 0; c < classes; c++) {
        float *x = row_of(odds, b, LOGITS, c);
        const float *t = row_of(odds, b, TARGETS, c);
        read_channel(pass, b, sample, start, n, c, x);
        if (odds->by_channel && odds->dense) LOOP x[i] = t[i] == IGNORED ? 0.0f : x[i];
    }
    if (odds->sigmoid) return;

    LOOP {
        b->top[i] = -INFINITY;
        o->second[i] = -FLT_MAX; /* a class masked by -inf is far behind, but inf - inf would be NaN */
        o->best[i] = -1;
    }
    for (int64_t c = 0; c < classes; c++) {
        const float *x = row_of(odds, b, LOGITS, c);
        LOOP {
            const int higher = x[i] > b->top[i];
            const float lower = higher ? b->top[i] : x[i];
            o->second[i] = lower > o->second[i] ? lower : o->second[i];
            o->best[i] = higher ? (int32_t)c : o->best[i];
            b->top[i] = higher ? x[i] : b->top[i];
        }
    }
    LOOP b->rest[i] = 0.0f;
    for (int64_t c = 0; c < classes; c++) {
        const float *x = row_of(odds, b, LOGITS, c);
        float *share = row_of(odds, b, SHARES, c);
        LOOP {
            const float e = exponential(x[i] - o->second[i]);
            share[i] = o->best[i] == (int32_t)c ? 0.0f : e;
            b->rest[i] += share[i];
        }
    }
    LOOP {
        const float top = b->top[i], gap = (top - o->second[i]) + (top - top); /* NaN of an infinite logit, to be seen */
        const float apart = exponential(-gap), all = apart * b->rest[i];
        const float rest = b->rest[i] < 1.0f ? 1.0f : b->rest[i]; /* the second class adds 1, unless it is masked */
        o->apart[i] = apart;
        o->log_sum[i] = logarithm_of_one_plus(all);
        o->of_best[i] = limited(gap - logarithm_of_one_plus(rest - 1.0f) + o->log_sum[i]);
        b->rest[i] = rest;
        b->scale[i] = 1.0f / (1.0f + all);
    }
}

/* Of class c of a block that was read: where its voxels are summed, and their targets. Returns how many of these are not
   0. */
static int64_t read_places(const OddsPass *odds, Block *b, Odds *o, int64_t sample, int64_t start, int64_t n, int64_t c) {
    const Pass *pass = &odds->pass;
    const int64_t first = odds->sigmoid ? 0 : 1;
    const float *t = row_of(odds, b, TARGETS, c);
    int32_t *index = o->index;
    read_map(pass, sample, start, n, c - first, pass->classes - first, index);
    if (odds->dense) LOOP {
        const int counts = b->label[i] >= 0 && t[i] != IGNORED;
        o->target[i] = counts ? t[i] : 0.0f;
        index[i] = counts ? 2 * index[i] + (t[i] >= 0.5f) : -1;
    }
    else LOOP {
        const int here = b->label[i] == (int32_t)c;
        o->target[i] = here ? 1.0f : 0.0f;
        index[i] = b->label[i] < 0 ? -1 : 2 * index[i] + here;
    }
    int64_t inside = 0;
    ADD(inside) inside += o->target[i] != 0.0f;
    return inside;
}

/* p and 1-p of class c of a block that was read. */
static void read_class(const OddsPass *odds, Block *b, Odds *o, int64_t c) {
    const float *x = row_of(odds, b, LOGITS, c), *share = row_of(odds, b, SHARES, c);
    if (odds->sigmoid) LOOP {
        const float z = limited(x[i]), e = exponential(z < 0.0f ? z : -z), large = 1.0f / (1.0f + e), small = e * large;
        o->p[i] = z < 0.0f ? small : large;
        o->q[i] = z < 0.0f ? large : small;
    }
    else LOOP {
        const int best = o->best[i] == (int32_t)c;
        const float rest = (b->rest[i] - share[i]) * o->apart[i];
        o->p[i] = (best ? 1.0f : share[i] * o->apart[i]) * b->scale[i];
        o->q[i] = (best ? rest : 1.0f + rest) * b->scale[i];
    }
}

/* -log p and -log(1-p) of class c of a block that was read; of a softmax the former only if targets are `inside`. */
static void read_surprise(const OddsPass *odds, Block *b, Odds *o, int64_t c, int64_t inside) {
    const float *x = row_of(odds, b, LOGITS, c), *share = row_of(odds, b, SHARES, c);
    if (odds->sigmoid) {
        LOOP {
            const float z = limited(x[i]), away = z < 0.0f ? -z : z, e = exponential(-away);
            const float both = logarithm_of_quotient(e / (2.0f + e)); /* log(1 + e) */
            o->own[i] = (z < 0.0f ? away : 0.0f) + both;
            o->other[i] = (z < 0.0f ? 0.0f : away) + both;
        }
        return;
    }
    LOOP {
        const float e = share[i] * o->apart[i], rest = (b->rest[i] - share[i]) * o->apart[i];
        const float other = logarithm_of_quotient(e / (2.0f * (1.0f + rest) + e)); /* log(1 + e / (1 + rest)) */
        o->other[i] = o->best[i] == (int32_t)c ? o->of_best[i] : other;
    }
    if (inside) LOOP o->own[i] = limited(b->top[i] - x[i] + o->log_sum[i]);
}

/* Add a class of a block that was read to `table`. */
static void add_class(Block *b, Odds *o, int64_t n, int64_t inside, double *table) {
    float *hit = b->hit, *excess = b->first, *missed = b->miss, *surprise = b->surprise;
    if (inside) LOOP {
        const float t = o->target[i], weight = b->weight[i];
        hit[i] = o->p[i] * t * weight;
        excess[i] = o->p[i] * (1.0f - t) * weight;
        missed[i] = o->q[i] * t * weight;
        surprise[i] = (t * o->own[i] + (1.0f - t) * o->other[i]) * weight;
    }
    else LOOP {
        excess[i] = o->p[i] * b->weight[i];
        surprise[i] = o->other[i] * b->weight[i];
    }
    /* Voxels of a region lie in rows: their sum is kept at hand, where it is added to fastest. */
    for (int64_t i = 0; i < n;) {
        const int32_t at = o->index[i];
        const int64_t first = i;
        float of_excess = 0.0f, of_surprise = 0.0f;
        do {
            of_excess += excess[i];
            of_surprise += surprise[i];
            i++;
        } while (i < n && o->index[i] == at);
        if (at < 0) continue;
        double *sums = table + (int64_t)at * ODDS_SUMS;
        sums[1] += of_excess;
        sums[3] += of_surprise;
        sums[4] += (double)(i - first);
        if (!inside) continue;
        float of_hit = 0.0f, of_missed = 0.0f;
        for (int64_t k = first; k < i; k++) {
            of_hit += hit[k];
            of_missed += missed[k];
        }
        sums[0] += of_hit;
        sums[2] += of_missed;
    }
}

/* The sums over lesions of part `number`. */
int voxloss_odds_sums(const OddsPass *odds, int64_t number) {
    const Pass *pass = &odds->pass;
    const Part part = part_of(pass, number);
    double *table = pass->lesions + number * 2 * pass->places * ODDS_SUMS;
    Block *b = new_block(OF_LOGITS * pass->classes);
    if (!b) return NO_MEMORY;
    _Alignas(64) Odds o;
    EACH_BLOCK(part) {
        read_odds(odds, b, &o, part.sample, start, n);
        for (int64_t c = odds->sigmoid ? 0 : 1; c < pass->classes; c++) {
            const int64_t inside = read_places(odds, b, &o, part.sample, start, n, c);
            read_class(odds, b, &o, c);
            read_surprise(odds, b, &o, c, inside);
            add_class(b, &o, n, inside, table);
        }
    }
    free(b);
    return 0;
}

/* Write the slope with respect to the log odds of a class of a block that was read. */
static void read_odds_slopes(const OddsPass *odds, const Odds *o, float *slope) {
    const float *of_lesions = odds->pass.of_lesions;
    LOOP {
        const int64_t at = o->index[i] < 0 ? 0 : (int64_t)SLOPES * o->index[i];
        const float hit = of_lesions[at], excess = of_lesions[at + 1], missed = of_lesions[at + 2];
        const float surprise = of_lesions[at + 3], t = o->target[i], p = o->p[i], q = o->q[i];
        const float inside = t * q * (p * (hit - missed) - surprise);
        const float whole = inside + (1.0f - t) * p * (q * excess + surprise);
        slope[i] = o->index[i] < 0 ? 0.0f : whole;
    }
}

/* The gradient of part `number`. Of a softmax, with the slopes s_c of the log odds of the classes that can have lesions, the
   likeliest class m and q, the softmax of the other classes, it is

       d/dx_k = s_k - p_k sum_{c != m} s_c / (1-p_c) + [k != m] (p_k s_k / (1-p_k) - q_k s_m) */
int voxloss_odds_gradient(const OddsPass *odds, int64_t number) {
    const Pass *pass = &odds->pass;
    const Part part = part_of(pass, number);
    const int64_t classes = pass->classes;
    Block *b = new_block(KINDS * classes);
    if (!b) return NO_MEMORY;
    _Alignas(64) Odds o;
    EACH_BLOCK(part) {
        read_odds(odds, b, &o, part.sample, start, n);
        float *all = b->first, *of_best = b->second;
        if (!odds->sigmoid) LOOP all[i] = of_best[i] = row_of(odds, b, OF_LOGITS, 0)[i] = 0.0f;
        for (int64_t c = odds->sigmoid ? 0 : 1; c < classes; c++) {
            float *slope = row_of(odds, b, OF_LOGITS, c);
            read_places(odds, b, &o, part.sample, start, n, c);
            read_class(odds, b, &o, c);
            read_odds_slopes(odds, &o, slope);
            if (odds->sigmoid) continue;
            LOOP {
                const int best = o.best[i] == (int32_t)c;
                const float share = best ? 0.0f : slope[i] / o.q[i];
                all[i] += share;
                of_best[i] = best ? slope[i] : of_best[i];
                slope[i] += o.p[i] * share;
            }
        }
        if (!odds->sigmoid) LOOP of_best[i] /= b->rest[i];
        for (int64_t c = 0; c < classes; c++) {
            const float *share = row_of(odds, b, SHARES, c);
            float *slope = row_of(odds, b, OF_LOGITS, c);
            if (!odds->sigmoid) LOOP {
                const float p = (o.best[i] == (int32_t)c ? 1.0f : share[i] * o.apart[i]) * b->scale[i];
                slope[i] -= p * all[i] + share[i] * of_best[i];
            }
            LOOP slope[i] *= b->weight[i];
            WRITE_GRADIENT(slope[i])
        }
    }
    free(b);
    return 0;
}
