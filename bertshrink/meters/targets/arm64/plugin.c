/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Counts the guest instructions that QEMU's user-mode emulation executes. At the end it writes, one number a line, the
 * count at each mark that the guest made and then the whole. A mark is the system call getsid(0): nobody else makes it.
 *
 * QEMU translates guest code block by block; whenever a block begins, its number of instructions is added, and a system
 * call ends a block. A block that an exception leaves in its middle counts whole, in every run of the same program.
 * Threads add to one counter atomically. A forked child has counters of its own, and only the process that began writes.
 *
 * It is loaded into QEMU, which is under the GPL; hence its licence. The prototypes below are the few of QEMU's plugin
 * interface that it calls, since Debian ships no header. They are those of version 1 of the interface (QEMU 6.0) and
 * later. PLUGIN_API is the version to claim: QEMU refuses what is older than it still knows (2 from QEMU 9.0 on).
 *
 *     cc -O2 -shared -fPIC -DPLUGIN_API=1 plugin.c -o count.so
 *     qemu-aarch64 -plugin ./count.so,out=FILE program
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define GETSID 156 /* on aarch64 */
#define MAX_MARKS 1024

typedef uint64_t u64;
struct qemu_plugin_tb;
typedef void (*translated_cb)(u64 plugin, struct qemu_plugin_tb *block);
typedef void (*executed_cb)(unsigned int vcpu, void *data);
typedef void (*called_cb)(u64 plugin, unsigned int vcpu, int64_t number, u64, u64, u64, u64, u64, u64, u64, u64);
typedef void (*exit_cb)(u64 plugin, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
void qemu_plugin_register_vcpu_tb_trans_cb(u64 plugin, translated_cb call);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block, executed_cb call, int registers, void *data);
void qemu_plugin_register_vcpu_syscall_cb(u64 plugin, called_cb call);
void qemu_plugin_register_atexit_cb(u64 plugin, exit_cb call, void *data);

__attribute__((visibility("default"))) int qemu_plugin_version = PLUGIN_API;

static u64 num_instructions, marks[MAX_MARKS], num_marks;
static char path[4096];
static pid_t owner;

static void executed(unsigned int vcpu, void *data)
{
    (void)vcpu;
    __atomic_fetch_add(&num_instructions, (uintptr_t)data, __ATOMIC_RELAXED);
}

static void translated(u64 plugin, struct qemu_plugin_tb *block)
{
    (void)plugin;
    qemu_plugin_register_vcpu_tb_exec_cb(block, executed, 0, (void *)(uintptr_t)qemu_plugin_tb_n_insns(block));
}

static void called(u64 plugin, unsigned int vcpu, int64_t number, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, u64 g, u64 h)
{
    (void)plugin, (void)vcpu, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    u64 at = number == GETSID && a == 0 ? __atomic_fetch_add(&num_marks, 1, __ATOMIC_RELAXED) : MAX_MARKS;
    if (at < MAX_MARKS)
        marks[at] = __atomic_load_n(&num_instructions, __ATOMIC_RELAXED);
}

static void finished(u64 plugin, void *data)
{
    (void)plugin, (void)data;
    int file = getpid() == owner ? open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666) : -1;
    if (file < 0)
        return;
    for (u64 at = 0; at < num_marks && at < MAX_MARKS; at++)
        dprintf(file, "%llu\n", (unsigned long long)marks[at]);
    dprintf(file, "%llu\n", (unsigned long long)num_instructions);
    close(file);
}

__attribute__((visibility("default")))
int qemu_plugin_install(u64 plugin, const void *info, int num_arguments, char **arguments)
{
    (void)info;
    if (num_arguments != 1 || strncmp(arguments[0], "out=", 4) || strlen(arguments[0]) - 4 >= sizeof path)
        return -1;
    strcpy(path, arguments[0] + 4);
    owner = getpid();
    qemu_plugin_register_vcpu_tb_trans_cb(plugin, translated);
    qemu_plugin_register_vcpu_syscall_cb(plugin, called);
    qemu_plugin_register_atexit_cb(plugin, finished, NULL);
    return 0;
}
