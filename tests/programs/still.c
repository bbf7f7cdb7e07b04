/* A program that does what its first argument says, while somebody holds it still. */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

volatile unsigned long counters[8], signals, released;
static const char *call;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void ready(void)
{
    printf("ready\n");
    fflush(stdout);
}

static void *count(void *place)
{
    volatile unsigned long *mine = place;
    for (;;) {
        mine[0]++;
        mine[1]++;
    }
    return NULL;
}

static void *nothing(void *place)
{
    counters[0]++;
    return place;
}

static void *waiting(void *place)
{
    for (;;)
        pause();
    return place;
}

static void on_signal(int number)
{
    signals++;
}

/* in a handler, for the call must not return */
static void tell(int number)
{
    char text[64];
    int size = snprintf(text, sizeof(text), "%s: waits still\n", call);
    _exit(write(1, text, size) != size);
}

void arrived(void)
{
    _exit(write(1, "arrived\n", 8) != 8);
}

static void wait_in(void)
{
    int status, number;
    sigset_t set;
    struct timespec time = {1000, 0};
    if (!strcmp(call, "nanosleep"))
        nanosleep(&time, NULL);
    if (!strcmp(call, "poll"))
        poll(NULL, 0, 1000000);
    if (!strcmp(call, "select"))
        select(0, NULL, NULL, NULL, &(struct timeval){1000, 0});
    if (!strcmp(call, "read"))
        number = read(0, &status, 1);
    if (!strcmp(call, "pause"))
        pause();
    if (!strcmp(call, "wait")) {
        if (!fork()) {
            for (;;) {
                if (getppid() == 1)
                    _exit(0);
                usleep(100000);
            }
        }
        wait(&status);
    }
    if (!strcmp(call, "futex")) {
        pthread_mutex_lock(&mutex);
        pthread_mutex_lock(&mutex);
    }
    if (!strcmp(call, "sigwait")) {
        sigemptyset(&set);
        sigaddset(&set, SIGUSR2);
        sigprocmask(SIG_BLOCK, &set, NULL);
        sigwait(&set, &number);
    }
    printf("%s: has returned\n", call);
    fflush(stdout);
    _exit(1);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    pthread_t thread;
    if (!strcmp(what, "count")) {
        for (int i = 0; i < 4; i++)
            pthread_create(&thread, NULL, count, (void *)&counters[2 * i]);
        ready();
        for (;;)
            pause();
    }
    if (!strcmp(what, "call")) {
        call = argv[2];
        signal(SIGUSR1, tell);
        ready();
        wait_in();
    }
    if (!strcmp(what, "signals")) {
        signal(SIGRTMIN, on_signal);
        ready();
        for (;;)
            counters[0]++;
    }
    if (!strcmp(what, "short")) {
        ready();
        for (;;) {
            if (pthread_create(&thread, NULL, nothing, NULL) == 0)
                pthread_join(thread, NULL);
        }
    }
    if (!strcmp(what, "many")) {
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, 1 << 16);
        for (int i = 0; i < 300; i++)
            pthread_create(&thread, &attributes, waiting, NULL);
        ready();
        pause();
    }
    if (!strcmp(what, "vfork")) {
        ready();
        if (!vfork()) {
            char byte;
            _exit(read(0, &byte, 1) != 1);
        }
        printf("both\n");
        fflush(stdout);
        pause();
    }
    if (!strcmp(what, "spin")) {
        unsigned long found;
        ready();
        __asm__ volatile("xor %%ebx, %%ebx\n1: test %%rbx, %%rbx\njz 1b\nmov %%rbx, %0" : "=r"(found) : : "rbx");
        printf("rbx %lu\n", found);
        fflush(stdout);
    }
    return 0;
}
