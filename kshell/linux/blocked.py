"""What kind of thing a task or a thread waits for, by the functions on its stack.

Kernel source: kernel/locking/ (mutex.c, rwsem.c, semaphore.c, rtmutex.c), kernel/sched/completion.c,
kernel/futex/, fs/eventpoll.c, fs/select.c, fs/pipe.c, kernel/exit.c. A task's stack is what tells: nothing in a
``task_struct`` does on kernels as distributions build them. Of user code: functions of glibc (nptl/), of musl
(src/thread/), and of Go and Rust.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

#: the first that the name of a frame matches, from the innermost frame on, is what is waited for
KINDS = tuple((re.compile(pattern), kind) for pattern, kind in (
    (r"(__)?(ww_)?mutex_lock", "MUTEX"),
    (r"rwsem_down_|(__)?down_(read|write)|percpu_down|percpu_rwsem_wait", "RWSEM"),
    (r"(__)?down(_|$)", "SEMAPHORE"),
    (r"(__)?rt_(mutex|spin)|rtlock_", "RTMUTEX"),
    (r"(do_)?wait_for_common|(__)?wait_for_completion|wait_rcu_gp", "COMPLETION"),
    (r"futex_", "FUTEX"),
    (r"(ep_poll|do_epoll_wait|do_sys_poll|do_select|poll_schedule)", "POLL"),
    (r"io_schedule|folio_wait|wait_on_page|bit_wait_io", "IO"),
    (r"do_wait$|do_wait\.|kernel_wait", "CHILD"),
    (r"hrtimer_nanosleep|do_nanosleep|msleep|usleep", "TIMER"),
    (r"do_sys_pause|.*_sys_pause|.*sigsuspend|do_sigtimedwait", "SIGNAL"),
    (r"do_signal_stop|ptrace_stop", "STOPPED"),
    (r"pipe_(read|write|wait)|anon_pipe_(read|write)", "PIPE"),
    (r"worker_thread|rescuer_thread|kthread_worker_fn|smpboot_thread_fn|kthread_parkme", "WORK"),
    (r"prepare_to_wait|wait_woken|do_wait_intr", "WAITQ"),
))
#: the kinds, in that order
KIND_NAMES = tuple(dict.fromkeys(kind for _, kind in KINDS))
#: the same of user code: functions of C libraries, with any version of their names
USER_KINDS = tuple((re.compile(rf"_*(?:libc_|new_)?(?:{pattern})"), kind) for pattern, kind in (
    (r"pthread_mutex_(timed|clock)?lock|lll_(timed|clock)?lock", "MUTEX"),
    (r"pthread_cond_(timed|clock)?wait", "CV"),
    (r"pthread_rwlock_(timed|clock)?(rd|wr)lock", "RWLOCK"),
    (r"sem_(timed|clock)?wait", "SEMAPHORE"),
    (r"pthread_(timed|clock)?join", "JOIN"),
    (r"pthread_barrier_wait", "BARRIER"),
    (r"p?poll(_chk)?$|p?select$|epoll_p?wait2?$", "POLL"),
    (r"(clock_)?nanosleep|u?sleep$", "TIMER"),
    (r"wait(3|4|id|pid)?$", "CHILD"),
    (r"pause$|sigsuspend|sigwait|sigtimedwait", "SIGNAL"),
    (r"p?(read|write)v?(64)?$|recv(from|mm?sg)?$|send(to|mm?sg)?$|accept4?$|connect$|f(data)?sync$", "IO"),
    (r"runtime\.futex|.*futex_wait$|.*futex_wait[.0-9]", "FUTEX"),
))
USER_KIND_NAMES = tuple(dict.fromkeys(kind for _, kind in USER_KINDS))
#: frames that are looked at; what is waited for is near the innermost one
DEPTH = 8


def waits_for(functions: Sequence[str], kinds: Sequence[tuple[re.Pattern[str], str]] = KINDS) -> str:
    """Return the kind of what a task with these *functions* on its stack (innermost first) waits for, "" if unknown."""
    for name in functions[:DEPTH]:
        for pattern, kind in kinds:
            if pattern.match(name):
                return kind
    return ""
