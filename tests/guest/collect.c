/* Writes the oracle: what the kernel itself says about this guest, as a newc cpio archive on a block device.
 *
 * usage: collect DEVICE LIST [crash]
 * LIST names files, one a line; every process's files are added. Nothing is forked, so what is archived still holds
 * when the guest is paused a moment later. Ends with "KSHELL-READY" on the console and sleeps, or (crash) panics. */

#include "runtime.h"

enum { CHUNK = 1 << 20, LIMIT = 64 << 20, PAGE = 4096 };

static u8 *content;             /* LIMIT bytes */
static u8 *outgoing;            /* CHUNK + slack; written when full */
static u64 outgoing_size, inode;
static int device;

static void flush(void)
{
    for (u64 done = 0; done < outgoing_size;) {
        long count = SYSCALL(SYS_write, device, outgoing + done, outgoing_size - done);
        if (count <= 0)
            quit("collect: cannot write the oracle drive");
        done += count;
    }
    outgoing_size = 0;
}

static void emit(const void *data, u64 size)
{
    const u8 *from = data;
    while (size) {
        u64 part = size < CHUNK - outgoing_size ? size : CHUNK - outgoing_size;
        memcpy(outgoing + outgoing_size, from, part);
        outgoing_size += part;
        from += part;
        size -= part;
        if (outgoing_size == CHUNK)
            flush();
    }
}

static void emit_hex(u64 value)
{
    char digits[8];
    for (int i = 7; i >= 0; i--, value >>= 4)
        digits[i] = "0123456789abcdef"[value & 15];
    emit(digits, 8);
}

static void pad(u64 size)
{
    emit("\0\0\0", -size & 3);
}

static void entry(const char *name, const void *data, u64 size)
{
    u64 name_size = length(name) + 1;
    emit("070701", 6);
    emit_hex(++inode);
    emit_hex(0100644);
    for (int i = 0; i < 4; i++)         /* uid gid nlink mtime */
        emit_hex(i == 2);
    emit_hex(size);
    for (int i = 0; i < 4; i++)         /* device numbers */
        emit_hex(0);
    emit_hex(name_size);
    emit_hex(0);
    emit(name, name_size);
    pad(110 + name_size);
    emit(data, size);
    pad(size);
}

/* Archive one file under its path without the leading slash; one that cannot be read is left out. */
static void file(const char *path)
{
    int input = (int)SYSCALL(SYS_open, path, O_RDONLY | O_NONBLOCK, 0);
    u64 size = 0;
    long count = 0;
    if (input < 0)
        return;
    while (size < LIMIT) {
        u64 room = LIMIT - size;
        count = SYSCALL(SYS_read, input, content + size, room < CHUNK ? room : CHUNK);
        if (count == -32)               /* EPIPE: /dev/kmsg overwrote a record; the next read goes on */
            continue;
        if (count <= 0)
            break;
        size += count;
    }
    SYSCALL(SYS_close, input, 0, 0);
    if (size || count == 0)
        entry(path + 1, content, size);
}

static void under(const char *folder, const char *name)
{
    char path[200];
    put_text(put_text(path, folder), name);
    file(path);
}

/* Call body(folder, name, data) for each name in folder that body should see (no dots). */
static void each(const char *folder, void (*body)(const char *folder, const char *name))
{
    u8 *names = map(1 << 16, PROT_RW, MAP_PRIVATE | MAP_ANON, -1);
    int input = (int)SYSCALL(SYS_open, folder, O_RDONLY | O_DIRECTORY, 0);
    long count;
    while (input >= 0 && (count = SYSCALL(SYS_getdents64, input, names, 1 << 16)) > 0)
        for (long at = 0; at < count; at += *(unsigned short *)(names + at + 16))
            if (names[at + 19] != '.')
                body(folder, (char *)names + at + 19);
    if (input >= 0)
        SYSCALL(SYS_close, input, 0, 0);
    SYSCALL(SYS_munmap, names, 1 << 16, 0);
}

static char *links_end;

static void link(const char *folder, const char *name)
{
    char path[200];
    put_text(put_text(path, folder), name);
    long size = SYSCALL(SYS_readlink, path, links_end + 64, 4000);
    if (size < 0 || length(name) > 60)
        return;
    memcpy(links_end + 64 + size, "\n", 2);
    char *end = put_text(put_text(links_end, name), " -> ");
    links_end = put_text(end, links_end + 64);
}

static void links(const char *process)
{
    char path[100];
    links_end = (char *)content;
    *links_end = 0;
    link(process, "exe");
    link(process, "cwd");
    put_text(put_text(path, process), "fd/");
    each(path, link);
    put_text(put_text(path, process), "links");
    entry(path + 1, content, (u64)links_end - (u64)content);
}

static u64 hexadecimal(const char **text)
{
    u64 value = 0;
    for (;; (*text)++) {
        char digit = **text;
        if (digit >= '0' && digit <= '9')
            value = value << 4 | (digit - '0');
        else if (digit >= 'a' && digit <= 'f')
            value = value << 4 | (digit - 'a' + 10);
        else
            return value;
    }
}

/* Archive "ADDRESS ENTRY" (u64 little-endian pairs) for every page of a process that has a page-map entry.
 * content holds the process's maps. */
static void pagemap(const char *process, u64 maps_size)
{
    char path[100];
    put_text(put_text(path, process), "pagemap");
    int input = (int)SYSCALL(SYS_open, path, O_RDONLY, 0);
    if (input < 0)
        return;
    const char *at = (char *)content;
    u64 *pairs = (u64 *)(content + LIMIT / 2), count = 0;
    u64 entries[512];
    while (at < (char *)content + maps_size) {
        u64 start = hexadecimal(&at);
        at++;
        u64 end = hexadecimal(&at);
        while (*at && *at++ != '\n')
            ;
        while (start < end && start < 0x800000000000UL) {
            u64 pages = (end - start) / PAGE;
            SYSCALL(SYS_lseek, input, start / PAGE * 8, 0);
            long size = SYSCALL(SYS_read, input, entries, (pages < 512 ? pages : 512) * 8);
            if (size <= 0)
                break;
            for (u64 i = 0; i < (u64)size / 8; i++, start += PAGE)
                if (entries[i] && count < LIMIT / 64) {
                    pairs[count++] = start;
                    pairs[count++] = entries[i];
                }
        }
    }
    SYSCALL(SYS_close, input, 0, 0);
    entry(path + 1, pairs, count * 8);
}

static void process_pagemap(const char *process)
{
    char path[100];
    u64 size = 0;
    put_text(put_text(path, process), "maps");
    int input = (int)SYSCALL(SYS_open, path, O_RDONLY, 0);
    long count;
    while (input >= 0 && size < LIMIT / 4 && (count = SYSCALL(SYS_read, input, content + size, CHUNK)) > 0)
        size += count;
    SYSCALL(SYS_close, input, 0, 0);
    content[size] = 0;
    if (size)
        pagemap(process, size);
}

static int brief;               /* thousands of processes: only what ::ps needs */

static void thread(const char *folder, const char *name)
{
    static const char *files[] = {"stat", "status", "comm", "stack", "wchan", "syscall", 0};
    char path[100];
    put_text(put_text(put_text(path, folder), name), "/");
    for (const char **each_file = files; *each_file; each_file++)
        under(path, *each_file);
}

static void process(const char *folder, const char *name)
{
    static const char *files[] = {"stat", "status", "cmdline", "comm", "environ", "maps", "statm", "stack", "wchan",
                                  "limits", "cgroup", "auxv", 0};
    char path[100];
    if (*name < '0' || *name > '9')
        return;
    put_text(put_text(put_text(path, folder), name), "/");
    if (brief) {
        under(path, "stat");
        under(path, "cmdline");
        return;
    }
    for (const char **each_file = files; *each_file; each_file++)
        under(path, *each_file);
    links(path);
    process_pagemap(path);
    put_text(path + length(path), "task/");
    each(path, thread);
}

static void attributes(const char *folder, const char *name)
{
    under(folder, name);
}

static void module(const char *folder, const char *name)
{
    char path[200];
    char *end = put_text(put_text(path, folder), name);
    put_text(end, "/sections/");
    each(path, attributes);
    put_text(end, "/notes/");
    each(path, attributes);
    put_text(end, "/parameters/");
    each(path, attributes);
}

static void listed(const char *list)
{
    char *names = map(1 << 16, PROT_RW, MAP_PRIVATE | MAP_ANON, -1);
    int input = (int)SYSCALL(SYS_open, list, O_RDONLY, 0);
    long size = SYSCALL(SYS_read, input, names, (1 << 16) - 1);
    for (char *at = names; size > 0 && at < names + size;) {
        char *name = at;
        while (*at && *at != '\n')
            at++;
        *at++ = 0;
        file(name);
    }
    SYSCALL(SYS_close, input, 0, 0);
}

int run(int argc, char **argv, char **envp)
{
    if (argc < 3)
        quit("usage: collect DEVICE LIST [brief] [crash]");
    device = (int)SYSCALL(SYS_open, argv[1], O_WRONLY, 0);
    if (device < 0)
        quit("collect: cannot open the oracle drive");
    int crash = 0;
    for (int i = 3; i < argc; i++) {
        crash |= same(argv[i], "crash");
        brief |= same(argv[i], "brief");
    }
    content = map(LIMIT + PAGE, PROT_RW, MAP_PRIVATE | MAP_ANON, -1);
    outgoing = map(CHUNK, PROT_RW, MAP_PRIVATE | MAP_ANON, -1);
    listed(argv[2]);
    each("/sys/module/", module);
    each("/sys/kernel/btf/", attributes);
    each("/run/", attributes);
    each("/proc/", process);
    entry("TRAILER!!!", 0, 0);
    memset(content, 0, 1024);
    emit(content, -outgoing_size & 511);        /* whole sectors */
    flush();
    if (SYSCALL(SYS_fsync, device, 0, 0) < 0)
        quit("collect: cannot sync the oracle drive");
    SYSCALL(SYS_munmap, content, LIMIT + PAGE, 0);
    say("\nKSHELL-READY\n");
    if (crash) {
        SYSCALL(SYS_ioctl, 2, 0x5409, 1);       /* TCSBRK: let the console have that line before the panic */
        int trigger = (int)SYSCALL(SYS_open, "/proc/sysrq-trigger", O_WRONLY, 0);
        SYSCALL(SYS_write, trigger, "c", 1);
        quit("collect: the kernel did not panic");
    }
    sleep_forever();
    return 0;
}
