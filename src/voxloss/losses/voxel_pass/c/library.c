/* What is compiled, in one piece: functions that every voxel needs are in one file, and get built into all others. */

#include "block.c"
#include "lesions.c"
#include "sums.c"
#include "odds.c"
