/* The smallest C runtime for the guest's programs: raw x86-64 Linux system calls, no libc.
 * Compiled by tcc, so assembly stands at the top level (tcc's operand constraints for r8-r10 vary by version). */

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;

long syscall6(long number, long a, long b, long c, long d, long e, long f);
long clone_thread(long flags, void *stack_top, int (*body)(long), long argument);
int run(int argc, char **argv, char **envp);

__asm__(
    ".globl syscall6\n"
    "syscall6:\n"
    " mov %rdi,%rax\n mov %rsi,%rdi\n mov %rdx,%rsi\n mov %rcx,%rdx\n"
    " mov %r8,%r10\n mov %r9,%r8\n mov 8(%rsp),%r9\n"
    " syscall\n ret\n"
    /* clone(2) with a body for the child: the new stack starts with the body and its argument. */
    ".globl clone_thread\n"
    "clone_thread:\n"
    " sub $32,%rsi\n mov %rdx,(%rsi)\n mov %rcx,8(%rsi)\n"
    " mov $56,%rax\n xor %rdx,%rdx\n xor %r10,%r10\n xor %r8,%r8\n"
    " syscall\n"
    " test %rax,%rax\n jnz clone_parent\n"
    " xor %rbp,%rbp\n pop %rax\n pop %rdi\n call *%rax\n"
    " mov %rax,%rdi\n mov $60,%rax\n syscall\n"
    "clone_parent:\n"
    " ret\n"
    ".globl _start\n"
    "_start:\n"
    " xor %rbp,%rbp\n mov %rsp,%rdi\n and $-16,%rsp\n call begin\n"
);

enum {
    SYS_read, SYS_write, SYS_open, SYS_close, SYS_lseek = 8, SYS_mmap, SYS_mprotect, SYS_munmap, SYS_brk,
    SYS_ioctl = 16, SYS_madvise = 28, SYS_pause = 34, SYS_getpid = 39, SYS_fork = 57, SYS_kill = 62, SYS_fsync = 74,
    SYS_ftruncate = 77, SYS_rename = 82, SYS_mkdir = 83, SYS_readlink = 89, SYS_setuid = 105, SYS_setgid = 106,
    SYS_setgroups = 116, SYS_prctl = 157, SYS_gettid = 186, SYS_getdents64 = 217, SYS_exit_group = 231,
    SYS_unshare = 272
};
enum { O_RDONLY = 0, O_WRONLY = 1, O_RDWR = 2, O_CREAT = 0100, O_TRUNC = 01000, O_NONBLOCK = 04000,
       O_DIRECTORY = 0200000 };
enum { PROT_NONE = 0, PROT_READ = 1, PROT_RW = 3, MAP_SHARED = 1, MAP_PRIVATE = 2, MAP_ANON = 0x20,
       MAP_HUGETLB = 0x40000 };

#define SYSCALL(number, a, b, c) syscall6((number), (long)(a), (long)(b), (long)(c), 0, 0, 0)

static u64 length(const char *text)
{
    u64 size = 0;
    while (text[size])
        size++;
    return size;
}

static int same(const char *left, const char *right)
{
    while (*left && *left == *right) {
        left++;
        right++;
    }
    return *left == *right;
}

void *memcpy(void *target, const void *source, unsigned long size)
{
    for (u64 i = 0; i < size; i++)
        ((u8 *)target)[i] = ((const u8 *)source)[i];
    return target;
}

void *memset(void *target, int value, unsigned long size)
{
    for (u64 i = 0; i < size; i++)
        ((u8 *)target)[i] = value;
    return target;
}

static void say(const char *text)
{
    SYSCALL(SYS_write, 2, text, length(text));
}

static void quit(const char *complaint)
{
    say(complaint);
    say("\n");
    SYSCALL(SYS_exit_group, 1, 0, 0);
}

static void *map(u64 size, int protection, int flags, int descriptor)
{
    long address = syscall6(SYS_mmap, 0, size, protection, flags, descriptor, 0);
    if (address < 0 && address > -4096)
        quit("mmap failed");
    return (void *)address;
}

static u64 number(const char *text)
{
    u64 value = 0;
    while (*text >= '0' && *text <= '9')
        value = value * 10 + (*text++ - '0');
    return value;
}

static char *put_text(char *out, const char *text)
{
    while (*text)
        *out++ = *text++;
    *out = 0;
    return out;
}

static char *put_decimal(char *out, u64 value)
{
    char digits[24];
    int count = 0;
    do {
        digits[count++] = '0' + value % 10;
        value /= 10;
    } while (value);
    while (count)
        *out++ = digits[--count];
    *out = 0;
    return out;
}

static void sleep_forever(void)
{
    for (;;)
        SYSCALL(SYS_pause, 0, 0, 0);
}

void begin(long *stack)
{
    int argc = (int)stack[0];
    char **argv = (char **)(stack + 1);
    SYSCALL(SYS_exit_group, run(argc, argv, argv + argc + 1), 0, 0);
}
