/* Processes whose memory is known. The name it is called by (or its first argument) chooses the part it plays;
 * every part that has something to tell writes /run/PART.json when it is ready, then sleeps. */

#include "runtime.h"

char greeting[] = "kshell victim: the quick brown fox";
char *greeting_pointer = greeting;
u64 counter_zero;                       /* .bss */

struct node {
    u64 magic;
    struct node *next;
    u32 id;
    char name[20];
};

enum { NODES = 16, PAGE = 4096, MIB = 1024 * 1024, HOLE = 16 * PAGE, NODE_STRIDE = 80 };
#define MAGIC 0x6b7368656c6c2121UL      /* "kshell!!" read big-endian */

struct node *list_head;

/* JSON: one flat object of name -> unsigned number */
static char json[8192], *json_end;

static void tell(const char *name, u64 value)
{
    json_end = put_text(json_end ? json_end : json, json_end ? ",\n \"" : "{\"");
    json_end = put_text(json_end, name);
    json_end = put_text(json_end, "\": ");
    json_end = put_decimal(json_end, value);
}

#define TELL(name, value) tell(name, (u64)(value))

static void ready(const char *part)
{
    char path[80], hidden[80];
    put_text(put_text(put_text(path, "/run/"), part), ".json");
    put_text(put_text(put_text(hidden, "/run/."), part), ".json");
    TELL("pid", SYSCALL(SYS_getpid, 0, 0, 0));
    json_end = put_text(json_end, "}\n");
    int file = (int)SYSCALL(SYS_open, hidden, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    SYSCALL(SYS_write, file, json, json_end - json);
    SYSCALL(SYS_close, file, 0, 0);
    SYSCALL(SYS_rename, hidden, path, 0);
}

static void fill_pattern(u8 *memory, u64 size)
{
    for (u64 i = 0; i < size; i++)
        memory[i] = (7 * i + 3) & 255;
}

static void make_list(void)
{
    u8 *heap = (u8 *)SYSCALL(SYS_brk, 0, 0, 0);
    SYSCALL(SYS_brk, heap + 2 * PAGE, 0, 0);
    struct node **link = &list_head;
    for (u32 i = 0; i < NODES; i++) {
        /* visited out of address order, so that a reader that walks memory instead of links is found out */
        struct node *node = (struct node *)(heap + 64 + (i * 5 % NODES) * NODE_STRIDE);
        node->magic = MAGIC;
        node->id = 100 + i;
        put_decimal(put_text(node->name, "node-"), i);
        *link = node;
        link = &node->next;
    }
    *link = 0;
    TELL("list_head", &list_head);
    TELL("first_node", list_head);
    TELL("heap", heap);
}

static void make_mappings(void)
{
    u8 *pattern = map(MIB + HOLE + PAGE, PROT_RW, MAP_PRIVATE | MAP_ANON, -1);
    fill_pattern(pattern, MIB);
    put_text((char *)pattern + MIB + HOLE, "behind the hole");
    TELL("pattern", pattern);
    TELL("pattern_size", MIB);
    TELL("hole", pattern + MIB);
    TELL("hole_size", HOLE);
    TELL("behind_hole", pattern + MIB + HOLE);

    char *guarded = map(4 * PAGE, PROT_RW, MAP_PRIVATE | MAP_ANON, -1);
    put_text(guarded, "before the guard");
    put_text(guarded + PAGE, "content behind PROT_NONE");
    put_text(guarded + 2 * PAGE, "read-only content");
    SYSCALL(SYS_mprotect, guarded + PAGE, PAGE, PROT_NONE);
    SYSCALL(SYS_mprotect, guarded + 2 * PAGE, PAGE, PROT_READ);
    TELL("prot_none", guarded + PAGE);
    TELL("read_only", guarded + 2 * PAGE);
    TELL("never_touched", guarded + 3 * PAGE);

    int file = (int)SYSCALL(SYS_open, "/run/shared-file", O_RDWR | O_CREAT, 0644);
    SYSCALL(SYS_ftruncate, file, 2 * PAGE, 0);
    char *shared = map(2 * PAGE, PROT_RW, MAP_SHARED, file);
    put_text(shared, "page cache of /run/shared-file");
    put_text(shared + PAGE - 4, "across pages");
    TELL("shared_file", shared);

    SYSCALL(SYS_munmap, pattern + MIB, HOLE, 0);    /* last, or the next mapping would fill it */
}

static void be_victim(int argc, char **argv, char **envp)
{
    char *on_stack = "a string on the stack follows";
    char local[64];
    put_text(local, "victim stack marker");
    make_list();
    make_mappings();
    TELL("greeting", greeting);
    TELL("greeting_pointer", &greeting_pointer);
    TELL("counter_zero", &counter_zero);
    TELL("stack_marker", local);
    TELL("stack_text", on_stack);
    TELL("argc", argc);
    TELL("argv", argv);
    TELL("envp", envp);
    ready("victim");
    sleep_forever();
}

volatile u32 threads_started;

static int thread_body(long index)
{
    char name[20];
    put_decimal(put_text(name, "thread-"), index);
    SYSCALL(SYS_prctl, 15, name, 0);    /* PR_SET_NAME */
    __asm__("lock; incl threads_started");
    sleep_forever();
    return 0;
}

static void be_threads(void)
{
    /* CLONE_VM | FS | FILES | SIGHAND | THREAD | SYSVSEM */
    long flags = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000;
    for (long i = 1; i < 4; i++) {
        u8 *stack = map(4 * PAGE, PROT_RW, MAP_PRIVATE | MAP_ANON, -1);
        if (clone_thread(flags, stack + 4 * PAGE, thread_body, i) < 0)
            quit("clone failed");
    }
    while (threads_started < 3)
        SYSCALL(24, 0, 0, 0);           /* sched_yield */
    ready("threads");
    sleep_forever();
}

static void be_huge(const char *part, int flags)
{
    u8 *area = map(4 * MIB, PROT_RW, MAP_PRIVATE | MAP_ANON | flags, -1);
    u8 *huge = (u8 *)(((u64)area + 2 * MIB - 1) & -(u64)(2 * MIB));
    if (!flags)
        SYSCALL(SYS_madvise, huge, 2 * MIB, 14);    /* MADV_HUGEPAGE */
    fill_pattern(huge, 2 * MIB);
    TELL("huge", huge);
    TELL("huge_size", 2 * MIB);
    ready(part);
    sleep_forever();
}

static void be_swapped(void)
{
    u8 *area = map(16 * PAGE, PROT_RW, MAP_PRIVATE | MAP_ANON, -1);
    fill_pattern(area, 16 * PAGE);
    TELL("swapped", area);
    TELL("swapped_size", 8 * PAGE);
    TELL("resident", area + 8 * PAGE);
    TELL("pageout", (u32)-SYSCALL(SYS_madvise, area, 8 * PAGE, 21));    /* MADV_PAGEOUT; 0 is success */
    ready("swapped");
    sleep_forever();
}

static void be_swarm(u64 count)
{
    u64 made = 0;
    for (; made < count; made++) {
        long child = SYSCALL(SYS_fork, 0, 0, 0);
        if (child == 0) {
            char name[20];
            put_decimal(put_text(name, "swarm-"), made);
            SYSCALL(SYS_prctl, 15, name, 0);
            sleep_forever();
        }
        if (child < 0)
            break;
    }
    TELL("wanted", count);
    TELL("made", made);
    ready("swarm");
    sleep_forever();
}

static void make_files(u64 count)
{
    u64 made = 0;
    SYSCALL(SYS_mkdir, "/run/files", 0755, 0);
    for (u64 i = 0; i < count; i++) {
        char path[80], *end = put_decimal(put_text(path, "/run/files/directory-"), i / 1000);
        if (i % 1000 == 0)
            SYSCALL(SYS_mkdir, path, 0755, 0);
        put_decimal(put_text(end, "/file-"), i);
        long file = SYSCALL(SYS_open, path, O_WRONLY | O_CREAT, 0644);
        if (file < 0)
            break;
        SYSCALL(SYS_close, file, 0, 0);
        made++;
    }
    TELL("wanted", count);
    TELL("made", made);
    ready("files");
}

int run(int argc, char **argv, char **envp)
{
    char *part = argv[0];
    for (char *p = argv[0]; *p; p++)
        if (*p == '/')
            part = p + 1;
    u64 count = argc > 1 ? number(argv[1]) : 0;
    if (same(part, "victim")) {
        be_victim(argc, argv, envp);
    } else if (same(part, "threads")) {
        be_threads();
    } else if (same(part, "hugetlb")) {
        be_huge(part, MAP_HUGETLB);
    } else if (same(part, "thp")) {
        be_huge(part, 0);
    } else if (same(part, "swapped")) {
        be_swapped();
    } else if (same(part, "swarm")) {
        be_swarm(count);
    } else if (same(part, "files")) {
        make_files(count);
        return 0;
    } else if (same(part, "zombie")) {
        if (SYSCALL(SYS_fork, 0, 0, 0) == 0) {
            SYSCALL(SYS_prctl, 15, "undead", 0);
            return 7;
        }
        ready(part);
    } else if (same(part, "user")) {
        SYSCALL(SYS_setgroups, 0, 0, 0);
        ready(part);
        SYSCALL(SYS_setgid, 1000, 0, 0);
        SYSCALL(SYS_setuid, 1000, 0, 0);
    } else if (same(part, "stopped")) {
        ready(part);
        SYSCALL(SYS_kill, SYSCALL(SYS_getpid, 0, 0, 0), 19, 0);     /* SIGSTOP */
    } else if (same(part, "inner")) {
        SYSCALL(SYS_unshare, 0x20000000, 0, 0);                     /* CLONE_NEWPID */
        if (SYSCALL(SYS_fork, 0, 0, 0) == 0) {
            SYSCALL(SYS_prctl, 15, "inner-init", 0);
            ready(part);                                            /* tells pid 1 */
        }
    } else if (same(part, "sleeper")) {
        ready(argc > 1 ? argv[1] : part);
    } else {
        quit("victim: unknown part");
    }
    sleep_forever();
    return 0;
}
