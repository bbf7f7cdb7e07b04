/* A program of 32 bits that needs no library: it calls down to a handler of a signal and waits there, or crashes. */

struct rec {
    const char *name;
    long number;
    unsigned long long wide;
    struct rec *next;
};

struct rec second = {"second", 2, 0x1234567890ULL, 0}, first = {"first", -1, 1, &second};
struct rec *pointer = &first;
long numbers[4] = {1, 2, 3, 4};
volatile int crash, plain, zero;

struct action {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    unsigned long mask[2];
};

#define OUT_OF_LINE __attribute__((noinline, noclone))

static OUT_OF_LINE long call(long number, long a, long b, long c, long d)
{
    long found;
    __asm__ volatile("int $0x80" : "=a"(found) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
    return found;
}

OUT_OF_LINE void handler(int number)
{
    call(4, 1, (long)"ready\n", 6, 0); /* write */
    if (crash)
        *(volatile int *)0x10 = number;
    for (;;)
        call(29, 0, 0, 0, 0); /* pause */
}

/* as a C library has one, without tables */
void __restore_rt(void);
__asm__(".text\n.globl __restore_rt\n.type __restore_rt, @function\n"
        "__restore_rt:\n\tmov $173, %eax\n\tint $0x80\n.size __restore_rt, . - __restore_rt\n");

OUT_OF_LINE int deep(int n)
{
    volatile char room[64];
    if (n > 0) {
        room[n] = 1;
        return deep(n - 1) + room[n];
    }
    call(37, call(20, 0, 0, 0, 0), 10, 0, 0); /* kill(getpid(), SIGUSR1) */
    return 1 + zero;
}

OUT_OF_LINE int start(int argc, char **argv)
{
    struct action action = {handler, 0, 0, {0, 0}};
    for (int i = 1; i < argc; i++) {
        crash |= argv[i][0] == 'c';
        plain |= argv[i][0] == 'p';
    }
    if (!plain) { /* struct rt_sigframe, and our own way back */
        action.flags = 4 | 0x04000000; /* SA_SIGINFO | SA_RESTORER */
        action.restorer = __restore_rt;
    }
    call(174, 10, (long)&action, 0, 8); /* rt_sigaction */
    return deep(5) + zero;
}

__asm__(".text\n.globl _start\n.type _start, @function\n"
        "_start:\n\t.cfi_startproc\n\t.cfi_undefined eip\n\txor %ebp, %ebp\n\tmov (%esp), %eax\n\tlea 4(%esp), %edx\n"
        "\tand $-16, %esp\n\tsub $8, %esp\n\tpush %edx\n\tpush %eax\n\tcall start\n\thlt\n\t.cfi_endproc\n"
        ".size _start, . - _start\n");
