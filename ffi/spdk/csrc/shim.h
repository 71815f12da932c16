/*
 * NVMe in flat functions and plain types: what Rust sees of SPDK. No type of SPDK's is in here, so nobody guesses
 * how one is laid out. src/abi.rs has the same, by hand; the compiler checks the sizes on both sides.
 *
 * Whoever changes anything here changes OGEE_NVME_ABI, src/abi.rs and src/emulated/table.rs with it.
 */
#ifndef OGEE_NVME_SHIM_H
#define OGEE_NVME_SHIM_H

#include <stddef.h>
#include <stdint.h>

#define OGEE_NVME_ABI 3

/* What a command does. */
enum {
    OGEE_NVME_READ = 1,
    OGEE_NVME_WRITE = 2,
    OGEE_NVME_FLUSH = 3,
    OGEE_NVME_WRITE_ZEROES = 4,
    OGEE_NVME_DEALLOCATE = 5,
};

/* Bits of a command. */
enum {
    OGEE_NVME_FORCE_UNIT_ACCESS = 1,
    /* Of write-zeroes: the blocks need not be kept. */
    OGEE_NVME_MAY_DEALLOCATE = 2,
};

/* What a controller or namespace can do. */
enum {
    OGEE_NVME_HAS_VOLATILE_CACHE = 1,
    OGEE_NVME_HAS_WRITE_ZEROES = 2,
    OGEE_NVME_HAS_DEALLOCATE = 4,
    OGEE_NVME_DEALLOCATED_READS_ZERO = 8,
    OGEE_NVME_WRITE_ZEROES_MAY_DEALLOCATE = 16,
};

/* What an implementation can do. */
enum {
    OGEE_NVME_CAN_INTERRUPT = 1,
};

/* How a controller is opened. */
enum {
    OGEE_NVME_WITH_INTERRUPTS = 1,
};

/* How a controller does. */
enum {
    OGEE_NVME_READY = 0,
    OGEE_NVME_FAILED = 1,
    OGEE_NVME_GONE = 2,
};

struct ogee_nvme_env_options {
    const char *name;
    /* PCI addresses that may be touched, and no others. */
    const char *const *allowed;
    uint32_t allowed_count;
    uint32_t memory_mib;
};

struct ogee_nvme_controller_info {
    /* Ended by a zero, without the blanks that fill them up. */
    char serial[24];
    char model[48];
    char firmware[16];
    uint32_t transfer_max;
    uint32_t segments_max;
    uint32_t first_namespace;
    uint32_t features;
};

struct ogee_nvme_namespace_info {
    uint64_t sectors;
    uint32_t sector_size;
    uint32_t metadata_size;
    uint32_t protection_type;
    uint32_t features;
};

struct ogee_nvme_segment {
    void *address;
    uint64_t length;
};

/* Called from within poll, reset and close, by the thread that calls those. `status` is type << 8 | code, 0 is success. */
typedef void (*ogee_nvme_done)(void *context, uint16_t status);

/* Its owner leaves it where and as it is until `done` was called. */
struct ogee_nvme_command {
    uint32_t kind;
    uint32_t namespace_id;
    uint64_t first_sector;
    uint32_t sectors;
    uint32_t flags;
    const struct ogee_nvme_segment *segments;
    uint32_t segment_count;
    /* The shim's own: where the walk over the segments is. */
    uint32_t at_segment;
    uint64_t at_offset;
    ogee_nvme_done done;
    void *context;
};

#define OGEE_NVME_PAGE_LENGTH 512

/* A log page that was asked for. Its owner leaves it where and as it is until `done` was called; the memory is any. */
struct ogee_nvme_page {
    uint8_t bytes[OGEE_NVME_PAGE_LENGTH];
    ogee_nvme_done done;
    void *context;
};

/* All return 0 or a count, or a negative errno. */
struct ogee_nvme_table {
    uint32_t abi;
    uint32_t version;
    uint32_t abilities;
    uint32_t reserved;
    int (*env_start)(const struct ogee_nvme_env_options *options);
    void *(*memory_take)(size_t length, size_t alignment);
    void (*memory_give)(void *memory);
    /* How many bytes from `address` on a device can reach; 0: none. */
    size_t (*memory_reach)(const void *address, size_t length);
    int (*controller_open)(const char *pci, uint32_t flags, void **controller);
    int (*controller_close)(void *controller);
    int (*controller_info)(void *controller, struct ogee_nvme_controller_info *info);
    int (*controller_state)(void *controller);
    int (*controller_poll)(void *controller);
    /* Asks for the health page, 02h, of the whole controller; it is there when `done` is called, from within
     * controller_poll, reset_start or controller_close. */
    int (*health_start)(void *controller, struct ogee_nvme_page *page);
    int (*reset_start)(void *controller);
    /* -EAGAIN until it is done. */
    int (*reset_poll)(void *controller);
    int (*namespace_info)(void *controller, uint32_t id, struct ogee_nvme_namespace_info *info);
    int (*queue_open)(void *controller, uint32_t depth, void **queue);
    int (*queue_close)(void *queue);
    int (*queue_submit)(void *queue, void *controller, struct ogee_nvme_command *command);
    int (*queue_poll)(void *queue, uint32_t completions_max);
    /* Of a controller with interrupts: an eventfd that does not block, and counts interrupts; the queue's own. */
    int (*queue_descriptor)(void *queue);
};

/* SPDK's. */
const struct ogee_nvme_table *ogee_nvme_spdk(void);

#endif
