/* The sums over lesions of softmax against labels, and their gradient, as lesions/sums.py explains them. */

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

/* -log(1-p) of the likeliest class, and the softmax of all others, where these are too small beside it. */
static void read_far_rivals(const Pass *pass, const Block *b, int64_t sample, int64_t start, int64_t n, Rivals *r,
                            float *shares) {
    float second[BLOCK];
    LOOP second[i] = -FLT_MAX; /* a class masked by -inf is far behind, but inf - inf would be NaN */
    for (int64_t c = 0; c < pass->classes; c++) {
        float *x = shares + c * ROW;
        read_channel(pass, b, sample, start, n, c, x);
        LOOP {
            x[i] = x[i] == b->top[i] && r->likeliest[i] == 1.0f ? -INFINITY : x[i];
            second[i] = x[i] > second[i] ? x[i] : second[i];
        }
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

/* Twice the place of each voxel's region for class c, and one more in a lesion of it, which are the voxels of this label;
   -1 for a voxel that does not count. After the block is a number that none has. */
static void read_regions(const Pass *pass, const Block *b, int64_t sample, int64_t start, int64_t n, int64_t c,
                         int32_t *index) {
    read_map(pass, sample, start, n, c - 1, pass->classes - 1, index);
    LOOP index[i] = b->label[i] < 0 ? -1 : 2 * index[i] + (b->label[i] == (int32_t)c);
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
    _Alignas(64) float of_p[BLOCK], of_surprise[BLOCK], total[BLOCK], near[BLOCK];
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
        const float *others = b->others + c * ROW, *share = far ? shares + c * ROW : near;
        float *result = slopes + c * ROW;
        if (!far) LOOP {
            const float own = b->own[i], e = b->label[i] == (int32_t)c ? own : others[i];
            near[i] = e == r.likeliest[i] ? 0.0f : e;
        }
        LOOP {
            const float other = others[i] * b->scale[i] * slope[i] + result[i], own = own_slope[i];
            result[i] = ((b->label[i] == (int32_t)c ? own : other) - of_best[i] * share[i]) * b->weight[i];
        }
    }
}
