/* Five ways for a kernel to die or to freeze, each staged on purpose: echo WHICH >/proc/disaster. See disasters.py. */

#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/proc_fs.h>
#include <linux/rtmutex.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/semaphore.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("staged disasters for kshell's tests");
MODULE_VERSION("1.0");

static int count = 10000;
module_param(count, int, 0444);
static char *label = "none";
module_param(label, charp, 0444);
static bool armed;
module_param(armed, bool, 0644);
static unsigned int delays[4] = {10, 20, 30};
static int delays_set = 3;
module_param_array(delays, uint, &delays_set, 0444);

/* null: a look-up that finds nothing, and a caller that does not ask whether it did */

struct item {
	struct list_head list;
	unsigned long id;
	char name[16];
	unsigned long price;            /* at 0x28 */
};

static LIST_HEAD(inventory);
static unsigned long wanted_id = 42;

static noinline struct item *find_item(unsigned long id)
{
	struct item *item;

	list_for_each_entry(item, &inventory, list)
		if (item->id == id)
			return item;
	return NULL;
}

static noinline unsigned long price_of(unsigned long id)
{
	struct item *item = find_item(id);

	return READ_ONCE(item->price);
}

/* abba: two threads take two mutexes in opposite order; others wait behind them */

static DEFINE_MUTEX(left_lock);
static DEFINE_MUTEX(right_lock);
static DECLARE_RWSEM(ledger_lock);
static struct semaphore tickets;
static DECLARE_COMPLETION(left_taken);
static DECLARE_COMPLETION(right_taken);
static DECLARE_COMPLETION(never);
static DEFINE_RT_MUTEX(ranked_lock);

static noinline void take_left_then_right(void)
{
	mutex_lock(&left_lock);
	down_write(&ledger_lock);
	rt_mutex_lock(&ranked_lock);
	complete(&left_taken);
	wait_for_completion(&right_taken);
	mutex_lock(&right_lock);
	mutex_unlock(&right_lock);
	rt_mutex_unlock(&ranked_lock);
	up_write(&ledger_lock);
	mutex_unlock(&left_lock);
}

static noinline void take_right_then_left(void)
{
	mutex_lock(&right_lock);
	complete(&right_taken);
	wait_for_completion(&left_taken);
	mutex_lock(&left_lock);
	mutex_unlock(&left_lock);
	mutex_unlock(&right_lock);
}

static noinline void read_ledger(void)
{
	down_read(&ledger_lock);
	up_read(&ledger_lock);
}

static noinline void write_ledger(void)
{
	down_write(&ledger_lock);
	up_write(&ledger_lock);
}

static noinline void wait_for_ticket(void)
{
	down(&tickets);
}

static noinline void wait_for_rank(void)
{
	rt_mutex_lock(&ranked_lock);
	rt_mutex_unlock(&ranked_lock);
}

static noinline void wait_for_never(void)
{
	wait_for_completion(&never);
}

static noinline void bystander(void)
{
	mutex_lock(&left_lock);
	mutex_unlock(&left_lock);
}

static int play(void *part)
{
	((void (*)(void))part)();
	while (!kthread_should_stop())
		ssleep(1);
	return 0;
}

static void stage_abba(void)
{
	sema_init(&tickets, 0);
	kthread_run(play, take_left_then_right, "abba-left");
	kthread_run(play, take_right_then_left, "abba-right");
	msleep(200);
	kthread_run(play, bystander, "abba-bystander");
	kthread_run(play, read_ledger, "abba-reader");
	kthread_run(play, write_ledger, "abba-writer");
	kthread_run(play, wait_for_ticket, "abba-ticket");
	kthread_run(play, wait_for_rank, "abba-rank");
	kthread_run(play, wait_for_never, "abba-never");
}

/* leak: sessions that are opened and forgotten, among some that are kept */

struct session {
	u64 magic;
	struct list_head list;
	u64 id;
	char user[152];
};

static struct kmem_cache *session_cache;
static LIST_HEAD(kept_sessions);

static noinline struct session *open_session(int id)
{
	struct session *session = kmem_cache_alloc(session_cache, GFP_KERNEL);

	if (session) {
		session->magic = 0x6b7368656c6c6c6bULL;
		session->id = id;
		INIT_LIST_HEAD(&session->list);
		snprintf(session->user, sizeof(session->user), "user-%d", id);
	}
	return session;
}

static void session_made(void *object)
{
	memset(object, 0, sizeof(struct session));
}

static void stage_leak(void)
{
	int i;

	/* a constructor keeps the cache from being merged with another one */
	session_cache = kmem_cache_create("disaster_session", sizeof(struct session), 0, 0, session_made);
	for (i = 0; i < 100; i++) {
		struct session *session = open_session(i);

		if (session)
			list_add_tail(&session->list, &kept_sessions);
	}
	for (; i < 100 + count; i++)
		if (!open_session(i))
			break;
	pr_info("disaster: %d sessions opened\n", i);
}

/* overflow: a recursion without an end */

static noinline int count_down(int depth)
{
	char line[256];
	int sum;

	snprintf(line, sizeof(line), "level %d", depth);
	sum = depth ? count_down(depth - 1) : 0;
	return sum + line[depth % sizeof(line)];
}

/* softlockup: a CPU that waits for what will not come */

static bool device_ready;

static noinline void wait_for_device(void)
{
	while (!READ_ONCE(device_ready))
		cpu_relax();
}

static noinline void poll_device(void)
{
	preempt_disable();
	wait_for_device();
	preempt_enable();
}

static noinline void stage(const char *which)
{
	if (!strcmp(which, "null"))
		pr_info("disaster: the price is %lu\n", price_of(READ_ONCE(wanted_id)));
	else if (!strcmp(which, "abba"))
		stage_abba();
	else if (!strcmp(which, "leak"))
		stage_leak();
	else if (!strcmp(which, "overflow"))
		pr_info("disaster: the sum is %d\n", count_down(100000));
	else if (!strcmp(which, "softlockup"))
		kthread_run(play, poll_device, "poller");
}

static ssize_t disaster_write(struct file *file, const char __user *text, size_t size, loff_t *position)
{
	char which[16] = "";

	if (size >= sizeof(which) || copy_from_user(which, text, size))
		return -EINVAL;
	stage(strim(which));
	return size;
}

static const struct proc_ops disaster_ops = {
	.proc_write = disaster_write,
};

static int __init disaster_init(void)
{
	return proc_create("disaster", 0200, NULL, &disaster_ops) ? 0 : -ENOMEM;
}

static void __exit disaster_exit(void)
{
	remove_proc_entry("disaster", NULL);
}

module_init(disaster_init);
module_exit(disaster_exit);
