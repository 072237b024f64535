/* What a descriptor of the current thread is open on, from the kernel's own structures. */
#ifndef PROFILER_OPEN_FILES_H
#define PROFILER_OPEN_FILES_H

#include "bpf.h"

struct task_struct;

/* What a descriptor is open on: the first bytes of its name, for the files that exist in no other place (an eventfd, a timer); the
 * file system on which it lies; and the kind of the file (`st_mode`), 0 if that is not known. */
struct open_file {
    u64 name;
    u32 file_system;
    u32 mode;
};

/* Where the kernel's structures have the fields that lead from a thread to its table of open files, to a file in it, and to
 * the kind of that file: set when the programs are loaded (`task_layout.rs`). */
enum file_field {
    TASK_FILES,
    FILES_TABLE,
    TABLE_LENGTH,
    TABLE_FILES,
    FILE_INODE,
    FILE_ENTRY,
    INODE_MODE,
    INODE_SYSTEM,
    SYSTEM_MAGIC,
    ENTRY_NAME,
    FILE_FIELDS
};
const volatile u32 file_fields[FILE_FIELDS] = {};

/* A bit for each system call whose first argument is a descriptor for which it may wait; none if the fields are not known. */
#define MAX_CALLS 512
const volatile u64 descriptor_calls[MAX_CALLS / 64] = {};

/* The file system of files that have nothing but a name (include/uapi/linux/magic.h). */
#define ANON_INODE_FS_MAGIC 0x09041934

/* A field that is a pointer to another structure of the kernel; null if it cannot be read. */
static ALWAYS_INLINE const u8 *pointer_in(const u8 *structure, enum file_field field) {
    const u8 *pointer = 0;
    bpf_probe_read_kernel(&pointer, sizeof pointer, structure + file_fields[field]);
    return pointer;
}

/* A field that is a number of 32 bits. */
static ALWAYS_INLINE u32 number_in(const u8 *structure, enum file_field field) {
    u32 value = 0;
    bpf_probe_read_kernel(&value, sizeof value, structure + file_fields[field]);
    return value;
}

/* The file that a descriptor of the current thread refers to at this moment. */
static ALWAYS_INLINE const u8 *file_of(const struct task_struct *task, u64 descriptor) {
    const u8 *table = pointer_in(pointer_in((const u8 *)task, TASK_FILES), FILES_TABLE);
    const u8 *file = 0;
    /* The kernel takes the lower half of it. */
    u64 index = (u32)descriptor;
    if (index < number_in(table, TABLE_LENGTH))
        bpf_probe_read_kernel(&file, sizeof file, pointer_in(table, TABLE_FILES) + index * sizeof file);
    return file;
}

/* Sets what the current thread waits for, if its system call takes a descriptor. It has to be read now: a moment later the
 * descriptor can refer to another file. */
static ALWAYS_INLINE void keep_file(const struct task_struct *task, u64 call, u64 descriptor, struct open_file *kept) {
    *kept = (struct open_file){};
    call = KEEP(call);
    if (call >= MAX_CALLS || !(descriptor_calls[call / 64] & 1ull << call % 64))
        return;
    const u8 *file = file_of(task, descriptor);
    if (!file)
        return;
    const u8 *inode = pointer_in(file, FILE_INODE);
    kept->mode = (u16)number_in(inode, INODE_MODE);
    kept->file_system = number_in(pointer_in(inode, INODE_SYSTEM), SYSTEM_MAGIC);
    if (kept->file_system == ANON_INODE_FS_MAGIC)
        bpf_probe_read_kernel(&kept->name, sizeof kept->name,
                              pointer_in(pointer_in(file, FILE_ENTRY), ENTRY_NAME));
}

#endif
