/* The slopes of the Lovász extension of the Jaccard loss: how much each error counts, by the order of the errors.

   Every call does one class of one sample, or of the batch, and the order of equal errors has no effect, so that results
   depend neither on the number of threads nor on their order. The formulas are explained in further/jaccard.py. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { NO_MEMORY = 4 };
enum { LOW = 10, MIDDLE = 10, HIGH = 11 }; /* bits of the digits, from the lowest; an error has 31, and no sign */

/* The key of a voxel that does not count. Of another it is twice the bits of its error, which have the order of the errors
   as they are not below 0, and one more for a member, a voxel of the class. */
static const uint32_t UNCOUNTED = UINT32_MAX;

typedef struct {
    const int32_t *keys;   /* (samples, 1 if `both` else classes, voxels) */
    const float *weight;   /* (samples, voxels); NULL: 1 */
    float *slopes;         /* (samples, classes, voxels): of p, below 0 where the error is 1-p */
    double *sums;          /* (samples, classes): the errors times their slopes */
    int64_t samples, classes, voxels;
    int64_t by_sample;
    int64_t both; /* of two classes with the same errors those of class 1 are sorted, and the others of it are class 0 */
} Order;

/* The voxels of one class that are ordered together; of `both` `rest` are the slopes for class 0, else NULL. */
typedef struct {
    const uint32_t *keys;
    const float *weight;
    float *slopes, *rest;
    int64_t samples, voxels, key_step, slope_step; /* from a sample to the next one */
} Group;

static float error_of(uint32_t key) {
    const uint32_t bits = key >> 1;
    float error;
    memcpy(&error, &bits, 4);
    return error;
}

/* The weights of members and others, and the lowest keys of each. */
typedef struct {
    double volume, others;
    uint32_t lowest_member, lowest_other;
} Extent;

static Extent extent_of(const Group *g) {
    Extent found = {0.0, 0.0, UINT32_MAX, UINT32_MAX};
    for (int64_t b = 0; b < g->samples; b++) {
        const uint32_t *keys = g->keys + b * g->key_step;
        const float *weight = g->weight ? g->weight + b * g->voxels : NULL;
        uint32_t members = 0, counted = 0;
        double volume = 0.0, others = 0.0;
        for (int64_t i = 0; i < g->voxels; i++) {
            const uint32_t key = keys[i], member = key & 1, counts = key != UNCOUNTED;
            const uint32_t as_member = member ? key : UINT32_MAX, as_other = member ? UINT32_MAX : key;
            members += member & counts;
            counted += counts;
            found.lowest_member = as_member < found.lowest_member ? as_member : found.lowest_member;
            found.lowest_other = as_other < found.lowest_other ? as_other : found.lowest_other;
        }
        if (weight) {
            for (int64_t i = 0; i < g->voxels; i++) {
                if (keys[i] == UNCOUNTED) continue;
                if (keys[i] & 1) volume += weight[i];
                else others += weight[i];
            }
        }
        found.volume += weight ? volume : (double)members;
        found.others += weight ? others : (double)(counted - members);
    }
    return found;
}

/* The slopes of a class without volume, whose loss is 1 as soon as there is a false positive: the largest errors of the
   voxels that are not its members, which have `member` in their keys, share it. */
static void share_largest(const Group *g, uint32_t member, float *slopes) {
    uint32_t largest = 0, any = 0;
    for (int64_t b = 0; b < g->samples; b++)
        for (int64_t i = 0; i < g->voxels; i++) {
            const uint32_t key = g->keys[b * g->key_step + i];
            if (key == UNCOUNTED || (key & 1) == member || (g->weight && g->weight[b * g->voxels + i] <= 0.0f)) continue;
            largest = key > largest ? key : largest;
            any = 1;
        }
    double total = 0.0;
    for (int round = 0; round < 2; round++)
        for (int64_t b = 0; b < g->samples; b++)
            for (int64_t i = 0; i < g->voxels; i++) {
                const double weight = g->weight ? g->weight[b * g->voxels + i] : 1.0;
                const int chosen = any && g->keys[b * g->key_step + i] == largest;
                if (round == 0) total += chosen ? weight : 0.0;
                else slopes[b * g->slope_step + i] = chosen ? (float)(weight / total) : 0.0f;
            }
}

/* An error that is sorted, with the number of its voxel in the low half. */
typedef uint64_t Entry;

static uint32_t key_of(Entry entry) { return (uint32_t)(entry >> 32); }

/* Sort in rising order of errors by one digit after the other; returns where the result is. */
static Entry *sort(Entry *entries, Entry *others, int64_t n, uint32_t *counts) {
    const int shifts[] = {33, 33 + LOW, 33 + LOW + MIDDLE}, bits[] = {LOW, MIDDLE, HIGH};
    for (int digit = 0; digit < 3; counts += 1 << bits[digit++]) {
        const uint64_t mask = (1u << bits[digit]) - 1;
        uint32_t start = 0, largest = 0;
        for (uint64_t value = 0; value <= mask; value++) {
            const uint32_t count = counts[value];
            largest = count > largest ? count : largest;
            counts[value] = start;
            start += count;
        }
        if (largest == n) continue; /* all have this value */
        for (int64_t i = 0; i < n; i++) others[counts[entries[i] >> shifts[digit] & mask]++] = entries[i];
        Entry *sorted = others;
        others = entries;
        entries = sorted;
    }
    return entries;
}

/* Write the slopes of errors in rising order, from the largest on. */
static void write_slopes(const Group *g, const Entry *entries, int64_t n, double volume, double rest) {
    double members = 0.0, others = 0.0; /* the weights of those with larger errors */
    for (int64_t stop = n; stop > 0;) {
        const uint32_t error = key_of(entries[stop - 1]) >> 1;
        double with_members = members, with_others = others; /* and of those with this error */
        int64_t start = stop;
        while (start > 0 && key_of(entries[start - 1]) >> 1 == error) {
            const Entry entry = entries[--start];
            const double weight = g->weight ? g->weight[(uint32_t)entry] : 1.0;
            if (key_of(entry) & 1) with_members += weight;
            else with_others += weight;
        }
        const double missed = 1.0 / (volume + others);
        const double excess = (volume - with_members) / ((volume + with_others) * (volume + others));
        const double rest_missed = 1.0 / (rest + members);
        const double rest_excess = (rest - with_others) / ((rest + with_members) * (rest + members));
        for (int64_t k = start; k < stop; k++) {
            const int64_t voxel = (uint32_t)entries[k];
            const int64_t place = g->samples == 1 ? voxel : voxel + voxel / g->voxels * (g->slope_step - g->voxels);
            const int member = key_of(entries[k]) & 1;
            const double weight = g->weight ? g->weight[voxel] : 1.0;
            g->slopes[place] = (float)((member ? -missed : excess) * weight);
            if (g->rest) g->rest[place] = (float)((member ? rest_excess : -rest_missed) * weight);
        }
        members = with_members;
        others = with_others;
        stop = start;
    }
}

/* Write the slopes of all voxels. Those with errors below the lowest of the other side need no order. */
static int order(const Group *g, Extent extent) {
    const double volume = extent.volume, rest = extent.others, least = -1.0 / (volume + rest);
    const uint32_t low = extent.lowest_member >> 1, other = extent.lowest_other >> 1, border = low > other ? low : other;
    const size_t number = (size_t)(g->samples * g->voxels), bins = (1 << LOW) + (1 << MIDDLE) + (1 << HIGH);
    int64_t n = 0;
    for (int64_t b = 0; b < g->samples; b++)
        for (int64_t i = 0; i < g->voxels; i++) {
            const uint32_t key = g->keys[b * g->key_step + i];
            n += key != UNCOUNTED && key >> 1 >= border;
        }
    Entry *entries = malloc((2 * (size_t)n + 1) * sizeof(Entry)); /* one is written over where it does not count */
    uint32_t *counts = calloc(bins, sizeof(uint32_t));
    if (!entries || !counts || number > UINT32_MAX) {
        free(entries);
        free(counts);
        return NO_MEMORY;
    }
    n = 0;
    for (int64_t b = 0; b < g->samples; b++)
        for (int64_t i = 0; i < g->voxels; i++) {
            const uint32_t key = g->keys[b * g->key_step + i], error = key >> 1;
            const int counted = key != UNCOUNTED, sorted = counted && error >= border;
            const int64_t voxel = b * g->voxels + i, place = b * g->slope_step + i;
            const double weight = !counted ? 0.0 : g->weight ? g->weight[voxel] : 1.0;
            g->slopes[place] = key & 1 ? (float)(least * weight) : 0.0f;
            if (g->rest) g->rest[place] = key & 1 ? 0.0f : (float)(least * weight);
            if (!sorted) continue;
            entries[n++] = (Entry)key << 32 | (Entry)voxel;
            counts[error & ((1 << LOW) - 1)]++;
            counts[(1 << LOW) + (error >> LOW & ((1 << MIDDLE) - 1))]++;
            counts[(1 << LOW) + (1 << MIDDLE) + (error >> (LOW + MIDDLE))]++;
        }
    write_slopes(g, sort(entries, entries + n, n, counts), n, volume, rest);
    free(entries);
    free(counts);
    return 0;
}

/* The errors times their slopes, of one sample and class. */
static double sum_of(const uint32_t *keys, const float *slopes, int64_t voxels) {
    double sum = 0.0;
    for (int64_t i = 0; i < voxels; i++) {
        const uint32_t key = keys[i];
        const float slope = slopes[i] < 0.0f ? -slopes[i] : slopes[i];
        sum += key == UNCOUNTED ? 0.0 : (double)error_of(key) * slope;
    }
    return sum;
}

/* The slopes and sums of group `number`: class by class, in each sample if they are by sample. */
int voxloss_order(const Order *o, int64_t number) {
    const int64_t own = o->both ? 1 : o->classes, n = o->voxels; /* classes that have keys of their own */
    const int64_t first = o->by_sample ? number / own : 0, c = o->both ? 1 : number % own;
    const uint32_t *keys = (const uint32_t *)o->keys + (first * own + (o->both ? 0 : c)) * n;
    float *slopes = o->slopes + first * o->classes * n;
    const Group group = {
        .keys = keys,
        .weight = o->weight ? o->weight + first * n : NULL,
        .slopes = slopes + c * n,
        .rest = o->both ? slopes : NULL,
        .samples = o->by_sample ? 1 : o->samples,
        .voxels = n,
        .key_step = own * n,
        .slope_step = o->classes * n,
    };
    const Extent extent = extent_of(&group);
    const int absent = extent.volume <= 0.0, rest_absent = o->both && extent.others <= 0.0;
    if ((!absent || o->both) && order(&group, extent)) return NO_MEMORY;
    if (absent) share_largest(&group, 1, group.slopes);
    if (rest_absent) share_largest(&group, 0, group.rest);
    for (int64_t b = 0; b < group.samples; b++) {
        double *sums = o->sums + (first + b) * o->classes;
        sums[c] = sum_of(keys + b * group.key_step, group.slopes + b * group.slope_step, n);
        if (group.rest) sums[0] = sum_of(keys + b * group.key_step, group.rest + b * group.slope_step, n);
    }
    return 0;
}
