/* A program that calls into its libraries and the vDSO all the time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define OUT_OF_LINE __attribute__((noinline))

OUT_OF_LINE long look(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_nsec;
}

OUT_OF_LINE long more(long n)
{
    char text[300];
    memset(text, (int)n, sizeof(text));
    snprintf(text, sizeof(text), "%ld %f %s", n, n * 1.5, "text");
    free(malloc(strlen(text) * 20));
    return look() + text[0];
}

int main(void)
{
    volatile long sum = 0;
    printf("ready\n");
    fflush(stdout);
    for (;;)
        sum += more(sum);
}
