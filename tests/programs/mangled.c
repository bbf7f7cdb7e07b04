/* A program whose functions have the names that compilers for C++ and Rust give them. */
#include <stdio.h>
#include <unistd.h>

#define OUT_OF_LINE __attribute__((noinline, noclone))

int cages[4] __asm__("_ZN3zoo5cagesE") = {1, 2, 3, 4};

int hold(int) __asm__("_ZN3zoo4CageIiE4holdERKSt6vectorIiSaIiEE");
int write_fmt(int) __asm__("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE");
int bar(int) __asm__("_RNvNtCs1234_7mycrate3foo3bar");

OUT_OF_LINE int bar(int n)
{
    for (;;)
        pause();
    return n;
}

OUT_OF_LINE int write_fmt(int n)
{
    return bar(n + 1) + cages[1];
}

OUT_OF_LINE int hold(int n)
{
    return write_fmt(n + 1) + cages[0];
}

int main(void)
{
    printf("ready\n");
    fflush(stdout);
    return hold(1) + cages[2];
}
