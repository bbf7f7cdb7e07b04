/* A program with every sort of type and variable, for tests of DWARF, of object files, of processes and cores.
 * "rec": prints a number and leaves; "rec wait": says "ready" and waits for a line; "rec wait crash": then crashes. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum color { RED, GREEN = 5, BLUE = -1 };
enum big { ONE = 1, LARGEST = 0xffffffffu };
struct forward;
typedef unsigned long ulong_t;
typedef int (*handler_t)(struct forward *, const char *, ...);
struct inner { int x, y; };
struct rec {
    struct rec *next;
    char name[16];
    unsigned a : 3, b : 5;
    int c : 7;
    uint64_t wide : 40;
    union { int i; float f; struct { short lo, hi; }; };
    struct { int u, v; } pair[2][3];
    handler_t handler;
    enum color color;
    const volatile struct inner *in;
    _Bool flag;
    double d;
    ulong_t big;
    struct forward *opaque;
    char tail[];
};

struct inner origin = {3, 4};
struct rec first = {
    .name = "first", .a = 5, .b = 9, .c = -3, .wide = 0x1234567890, .i = 77, .color = GREEN, .in = &origin,
    .flag = 1, .d = 2.5, .big = 99,
};
extern int numbers[];
int numbers[5] = {1, 2, 3, 4, 5};
enum big huge = LARGEST;
static volatile int hidden = 42;

static inline __attribute__((always_inline)) int twice(int n) { return n * hidden; }
static inline __attribute__((always_inline)) int more(int n)
{
    return twice(n) + 1;
}

__attribute__((noinline)) int compute(int n, const char *why)
{
    int r = more(n);
    if (why)
        puts(why);
    return r + numbers[n & 3];
}

int main(int argc, char **argv)
{
    first.next = malloc(sizeof first);
    *first.next = first;
    first.next->next = 0;
    first.next->name[0] = 'F';
    printf("%d\n", compute(argc, argc > 1 ? "ready" : 0));
    fflush(stdout);
    if (argc > 1)
        getchar();
    printf("%s %d\n", first.name, numbers[2]);
    fflush(stdout);
    if (argc > 2)
        *(volatile int *)0 = 1;
    return 0;
}
