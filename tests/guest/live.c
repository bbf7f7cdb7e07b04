/* What the guest "live" plays beside the others: a process whose memory is changed from outside, and which says so.
 *
 * teller: tells its addresses in /run/teller.json. Its text and its number are looked at all the time; when one of
 * them has changed a line goes to the console, "TELLER text NEW" or "TELLER number NEW". It opens the file that
 * ``path`` names, again and again, and says which one it was: "TELLER opened FIRST-LINE" whenever that changes. */

#include "runtime.h"

volatile char teller_text[64] = "teller: nothing has changed yet";
volatile u64 teller_number = 1;
volatile char teller_path[64] = "/run/first";

static char seen_text[64], seen_line[64];
static char json[1024], *json_end = json;

static void tell(const char *name, u64 value)
{
    json_end = put_text(json_end, json_end == json ? "{\"" : ",\n \"");
    json_end = put_text(json_end, name);
    json_end = put_text(json_end, "\": ");
    json_end = put_decimal(json_end, value);
}

static void write_file(const char *path, const char *text)
{
    int file = (int)SYSCALL(SYS_open, path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    SYSCALL(SYS_write, file, text, length(text));
    SYSCALL(SYS_close, file, 0, 0);
}

static void line(const char *what, const char *text)
{
    char out[200];
    put_text(put_text(put_text(put_text(out, "TELLER "), what), text), "\n");
    say(out);
}

static void look_at_file(void)
{
    char path[64], content[64];
    for (int i = 0; i < 64; i++)
        path[i] = teller_path[i];
    int file = (int)SYSCALL(SYS_open, path, O_RDONLY, 0);
    if (file < 0)
        return;
    long size = SYSCALL(SYS_read, file, content, 63);
    SYSCALL(SYS_close, file, 0, 0);
    content[size > 0 ? size : 0] = 0;
    if (!same(content, seen_line)) {
        put_text(seen_line, content);
        line("opened ", content);
    }
}

int run(int argc, char **argv, char **envp)
{
    char digits[32];
    u64 seen_number = teller_number;
    u64 pause[2] = {0, 20000000};       /* 20 ms */
    write_file("/run/first", "the first file");
    write_file("/run/other", "the other file");
    put_text(seen_text, (const char *)teller_text);
    tell("pid", SYSCALL(SYS_getpid, 0, 0, 0));
    tell("text", (u64)teller_text);
    tell("number", (u64)&teller_number);
    tell("path", (u64)teller_path);
    json_end = put_text(json_end, "}\n");
    write_file("/run/.teller.json", json);
    SYSCALL(SYS_rename, "/run/.teller.json", "/run/teller.json", 0);
    for (;;) {
        SYSCALL(35, pause, 0, 0);       /* nanosleep */
        if (!same((const char *)teller_text, seen_text)) {
            for (int i = 0; i < 63; i++)
                seen_text[i] = teller_text[i];
            line("text ", seen_text);
        }
        if (teller_number != seen_number) {
            seen_number = teller_number;
            put_decimal(digits, seen_number);
            line("number ", digits);
        }
        look_at_file();
    }
    return 0;
}
