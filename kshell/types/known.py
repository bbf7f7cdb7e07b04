"""Types of well-known global variables: BTF records those of per-CPU variables only.

Facts from the kernel's declarations (include/linux/*.h and the file that defines each). ``[]`` takes its length from
the symbol's size. A name that a kernel does not have, or whose type it does not have, costs nothing.
"""

from __future__ import annotations

_TABLE = """
struct task_struct: init_task
struct mm_struct: init_mm
struct cred: init_cred
struct nsproxy: init_nsproxy
struct pid_namespace: init_pid_ns
struct uts_namespace: init_uts_ns
struct ipc_namespace: init_ipc_ns
struct user_namespace: init_user_ns
struct cgroup_namespace: init_cgroup_ns
struct time_namespace: init_time_ns
struct mnt_namespace *: init_mnt_ns
struct net: init_net
struct pid: init_struct_pid
struct files_struct: init_files
struct fs_struct: init_fs
struct signal_struct: init_signals
struct sighand_struct: init_sighand
struct css_set: init_css_set
struct task_group: root_task_group
struct cgroup_root: cgrp_dfl_root
struct list_head: modules slab_caches super_blocks btf_modules vmap_area_list net_namespace_list
struct list_head: cgroup_roots crypto_alg_list bdi_list workqueues task_groups tasks_list ftrace_events
struct list_head: pernet_list clocksource_list shrinker_list pci_root_buses acpi_bus_id_list
struct hlist_head *: mount_hashtable mountpoint_hashtable
struct hlist_bl_head *: dentry_hashtable
struct hlist_head *: inode_hashtable
struct hlist_head []: unbound_pool_hash uidhash_table
struct rb_root: vmap_area_root
struct printk_ringbuffer *: prb
struct printk_ringbuffer: printk_rb_static printk_rb_dynamic
unsigned long: page_offset_base vmalloc_base vmemmap_base max_pfn max_low_pfn min_low_pfn max_mapnr
unsigned long: jiffies loops_per_jiffy
unsigned long []: empty_zero_page
phys_addr_t: physical_mask
unsigned long: tainted_mask totalreserve_pages highest_memmap_pfn zero_pfn cpu_khz_base
u64: jiffies_64
atomic_long_t: _totalram_pages
unsigned long []: __per_cpu_offset
unsigned int: nr_cpu_ids cpu_khz tsc_khz pgtable_l5_enabled_flag __pgtable_l5_enabled pgdir_shift ptrs_per_p4d
unsigned int: system_state_number log_buf_len kptr_restrict oops_in_progress
int: panic_on_oops panic_timeout panic_on_warn sysctl_panic_on_oom nr_threads max_threads pid_max
int: sysctl_sched_rt_runtime sysctl_overcommit_memory modules_disabled debug_locks
bool: console_suspend_enabled
atomic_t: panic_cpu
enum system_states: system_state
struct cpumask: __cpu_online_mask __cpu_possible_mask __cpu_present_mask __cpu_active_mask __cpu_dying_mask
char []: linux_banner linux_proc_banner boot_command_line
char *: saved_command_line static_command_line log_buf
char *: initcall_command_line
struct pglist_data *[]: node_data
struct mem_section **: mem_section
struct resource: iomem_resource ioport_resource
struct kset *: module_kset devices_kset bus_kset class_kset
struct kobject *: kernel_kobj mm_kobj fs_kobj power_kobj firmware_kobj
struct file_system_type *: file_systems
struct char_device_struct *[]: chrdevs
struct inet_hashinfo: tcp_hashinfo
struct udp_table: udp_table
struct swap_info_struct *[]: swap_info
struct address_space *[]: swapper_spaces
struct kmem_cache *: task_struct_cachep files_cachep fs_cachep mm_cachep vm_area_cachep sighand_cachep signal_cachep
struct kmem_cache *: dentry_cache inode_cachep filp_cachep names_cachep kmem_cache pid_cachep cred_jar
struct kmem_cache *: nsproxy_cachep anon_vma_cachep bdev_cachep sock_inode_cachep
atomic_long_t []: vm_zone_stat vm_node_stat vm_numa_event
atomic_long_t: nr_swap_pages
struct pv_info: pv_info
struct cpuinfo_x86: boot_cpu_data
struct machine_ops: machine_ops
struct screen_info: screen_info
struct boot_params: boot_params
struct idt_bits: idt_bits
gate_desc []: idt_table
struct desc_ptr: idt_descr
struct timekeeper: shadow_timekeeper
struct ktime_timestamp: ktime_timestamp
struct workqueue_struct *: system_wq system_highpri_wq system_long_wq system_unbound_wq system_freezable_wq
struct idr: bpf_map_idr bpf_prog_idr btf_idr
struct mutex: module_mutex slab_mutex cgroup_mutex rtnl_mutex text_mutex event_mutex
struct console *: console_drivers
struct hlist_head: console_list
struct proc_dir_entry: proc_root
struct bus_type: pci_bus_type platform_bus_type cpu_subsys
struct dentry *: debugfs_mount_root
struct vfsmount *: shm_mnt
struct page *: mem_map
struct tty_struct *: console_tty
struct work_struct: console_work
struct tasklet_struct: bh_task_struct
"""


def _parse() -> dict[str, str]:
    table: dict[str, str] = {}
    for line in _TABLE.strip().splitlines():
        ctype, _, names = line.partition(":")
        for name in names.split():
            table[name] = ctype
    return table


_types: dict[str, str] | None = None


def known_type(symbol: str) -> str | None:
    """Return the C type of the global variable *symbol*, or None. ``T []`` is an array as long as the symbol."""
    global _types
    if _types is None:
        _types = _parse()
    return _types.get(symbol)
