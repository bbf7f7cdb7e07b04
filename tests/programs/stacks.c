/* Threads that wait in calls of every kind; says "ready" when all of them do. */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define OUT_OF_LINE __attribute__((noinline))

volatile int zero, spins;
static pthread_barrier_t all;

static void arrive(void)
{
    pthread_barrier_wait(&all);
}

OUT_OF_LINE int deep(int n)
{
    if (n)
        return deep(n - 1) + 1;
    arrive();
    for (;;)
        pause();
}

OUT_OF_LINE int compare(const void *a, const void *b)
{
    arrive();
    for (;;)
        poll(NULL, 0, 1000000);
    return *(const int *)a - *(const int *)b;
}

void *sorter(void *unused)
{
    int numbers[] = {3, 1, 2, 0};
    qsort(numbers, 4, sizeof(int), compare);
    return unused;
}

OUT_OF_LINE void handler(int number)
{
    arrive();
    for (;;)
        sleep(1000000);
    zero = number & 0;
}

void *other_stack(void *unused)
{
    stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    sigaltstack(&stack, NULL);
    sigaction(SIGUSR1, &action, NULL);
    pthread_kill(pthread_self(), SIGUSR1);
    return unused;
}

void *faulting(void *unused)
{
    struct sigaction action = {.sa_handler = handler};
    sigaction(SIGSEGV, &action, NULL);
    *(volatile int *)(8L + zero) = 1;
    return unused;
}

void *spinning(void *unused)
{
    arrive();
    for (;;)
        spins++;
    return unused;
}

OUT_OF_LINE int moved(int n)
{
    volatile char *room = __builtin_alloca(n + zero);
    room[n - 1] = 1;
    return deep(3) + room[0];
}

void *moving(void *unused)
{
    moved(1000);
    return unused;
}

void *wild(void *unused)
{
    struct sigaction action = {.sa_handler = handler};
    void (*function)(void) = (void (*)(void))(0x10L + zero);
    sigaction(SIGSEGV, &action, NULL);
    function();
    zero = 0;
    return unused;
}

int main(void)
{
    static void *(*const each[])(void *) = {sorter, other_stack, faulting, spinning, moving, wild};
    const int count = sizeof(each) / sizeof(each[0]);
    pthread_t thread;
    pthread_barrier_init(&all, NULL, count + 1);
    for (int i = 0; i < count; i++)
        pthread_create(&thread, NULL, each[i], NULL);
    printf("ready\n");
    fflush(stdout);
    return deep(20);
}
