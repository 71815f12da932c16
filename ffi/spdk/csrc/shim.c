/* The functions of shim.h over SPDK's. */
#include "shim.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <spdk/env.h>
#include <spdk/nvme.h>
#include <spdk/version.h>

/* SPDK splits what crosses a boundary that the device prefers; the parts need requests of their own. */
#define REQUESTS_PER_ENTRY 4
#define ADMIN_TIMEOUT_MS 10000

/* Interrupts of PCIe controllers came with 25.05. */
#ifndef OGEE_NVME_INTERRUPTS
#define OGEE_NVME_INTERRUPTS (SPDK_VERSION_MAJOR > 25 || (SPDK_VERSION_MAJOR == 25 && SPDK_VERSION_MINOR >= 5))
#endif

_Static_assert(sizeof(struct ogee_nvme_command) == 64, "as in abi.rs");
_Static_assert(sizeof(struct ogee_nvme_controller_info) == 104, "as in abi.rs");
_Static_assert(sizeof(struct ogee_nvme_namespace_info) == 24, "as in abi.rs");
_Static_assert(sizeof(struct ogee_nvme_env_options) == 24, "as in abi.rs");
_Static_assert(sizeof(struct ogee_nvme_page) == 528, "as in abi.rs");
_Static_assert(sizeof(struct spdk_nvme_health_information_page) == OGEE_NVME_PAGE_LENGTH, "as the specification has it");

static int env_start(const struct ogee_nvme_env_options *options)
{
    struct spdk_env_opts opts;
    struct spdk_pci_addr *allowed;
    uint32_t i;
    int rc = 0;

    allowed = calloc(options->allowed_count, sizeof(*allowed));
    if (allowed == NULL) {
        return -ENOMEM;
    }
    for (i = 0; i < options->allowed_count && rc == 0; i++) {
        rc = spdk_pci_addr_parse(&allowed[i], options->allowed[i]);
    }
    if (rc == 0) {
        memset(&opts, 0, sizeof(opts));
        opts.opts_size = sizeof(opts);
        spdk_env_opts_init(&opts);
        opts.name = options->name;
        /* Its main core is the thread that calls, which is thrown away. */
        opts.core_mask = "0x1";
        /* Nobody else is to share its memory. */
        opts.shm_id = -1;
        /* A process that is killed leaves none behind. */
        opts.unlink_hugepage = true;
        opts.mem_size = (int)options->memory_mib;
        opts.pci_allowed = allowed;
        opts.num_pci_addr = options->allowed_count;
        rc = spdk_env_init(&opts);
    }
    /* SPDK has written down what it needs of it. */
    free(allowed);
    return rc < 0 ? rc : -rc;
}

static void *memory_take(size_t length, size_t alignment)
{
    return spdk_zmalloc(length, alignment, NULL, SPDK_ENV_NUMA_ID_ANY, SPDK_MALLOC_DMA);
}

static size_t memory_reach(const void *address, size_t length)
{
    uint64_t found = length;

    if (spdk_vtophys(address, &found) == SPDK_VTOPHYS_ERROR) {
        return 0;
    }
    return found < length ? found : length;
}

static int controller_open(const char *pci, uint32_t flags, void **controller)
{
    struct spdk_nvme_transport_id trid;
    struct spdk_nvme_ctrlr_opts opts;

    memset(&trid, 0, sizeof(trid));
    spdk_nvme_trid_populate_transport(&trid, SPDK_NVME_TRANSPORT_PCIE);
    if (strlen(pci) >= sizeof(trid.traddr)) {
        return -EINVAL;
    }
    memcpy(trid.traddr, pci, strlen(pci) + 1);
    spdk_nvme_ctrlr_get_default_ctrlr_opts(&opts, sizeof(opts));
    opts.num_io_queues = 1;
    opts.admin_timeout_ms = ADMIN_TIMEOUT_MS;
    if (flags & OGEE_NVME_WITH_INTERRUPTS) {
#if OGEE_NVME_INTERRUPTS
        opts.enable_interrupts = true;
#else
        return -ENOTSUP;
#endif
    }
    *controller = spdk_nvme_connect(&trid, &opts, sizeof(opts));
    return *controller == NULL ? -ENODEV : 0;
}

static int controller_close(void *controller)
{
    return spdk_nvme_detach(controller);
}

/* Identify's text is filled up with blanks and has no end. */
static void copy_text(char *to, size_t room, const void *from, size_t length)
{
    const char *text = from;

    while (length > 0 && (text[length - 1] == ' ' || text[length - 1] == '\0')) {
        length--;
    }
    if (length >= room) {
        length = room - 1;
    }
    memcpy(to, text, length);
    to[length] = '\0';
}

static int controller_info(void *controller, struct ogee_nvme_controller_info *info)
{
    const struct spdk_nvme_ctrlr_data *data = spdk_nvme_ctrlr_get_data(controller);

    memset(info, 0, sizeof(*info));
    copy_text(info->serial, sizeof(info->serial), data->sn, sizeof(data->sn));
    copy_text(info->model, sizeof(info->model), data->mn, sizeof(data->mn));
    copy_text(info->firmware, sizeof(info->firmware), data->fr, sizeof(data->fr));
    info->transfer_max = spdk_nvme_ctrlr_get_max_xfer_size(controller);
    info->segments_max = spdk_nvme_ctrlr_get_max_sges(controller);
    info->first_namespace = spdk_nvme_ctrlr_get_first_active_ns(controller);
    if (data->vwc.present) {
        info->features |= OGEE_NVME_HAS_VOLATILE_CACHE;
    }
    return 0;
}

static int controller_state(void *controller)
{
    /* Of a device that is not there any more, all bits read as ones. */
    if (spdk_nvme_ctrlr_get_regs_csts(controller).raw == UINT32_MAX) {
        return OGEE_NVME_GONE;
    }
    if (spdk_nvme_ctrlr_is_failed(controller) || spdk_nvme_ctrlr_get_regs_csts(controller).bits.cfs ||
        !spdk_nvme_ctrlr_get_regs_csts(controller).bits.rdy) {
        return OGEE_NVME_FAILED;
    }
    return OGEE_NVME_READY;
}

static int controller_poll(void *controller)
{
    return spdk_nvme_ctrlr_process_admin_completions(controller);
}

static void page_completed(void *arg, const struct spdk_nvme_cpl *cpl)
{
    struct ogee_nvme_page *page = arg;

    page->done(page->context, (uint16_t)(cpl->status.sct << 8 | cpl->status.sc));
}

static int health_start(void *controller, struct ogee_nvme_page *page)
{
    /* SPDK has memory of its own for the transfer, and copies. */
    return spdk_nvme_ctrlr_cmd_get_log_page(controller, SPDK_NVME_LOG_HEALTH_INFORMATION, SPDK_NVME_GLOBAL_NS_TAG,
                                            page->bytes, sizeof(page->bytes), 0, page_completed, page);
}

/* Over PCI, the admin queue is disconnected at the first look. */
#define DISCONNECT_POLLS_MAX 1000

static int reset_start(void *controller)
{
    int rc = spdk_nvme_ctrlr_disconnect(controller);
    int i;

    if (rc != 0) {
        return rc;
    }
    for (i = 0; i < DISCONNECT_POLLS_MAX; i++) {
        if (spdk_nvme_ctrlr_process_admin_completions(controller) == -ENXIO) {
            spdk_nvme_ctrlr_reconnect_async(controller);
            return 0;
        }
    }
    return -EBUSY;
}

static int reset_poll(void *controller)
{
    return spdk_nvme_ctrlr_reconnect_poll_async(controller);
}

static int namespace_info(void *controller, uint32_t id, struct ogee_nvme_namespace_info *info)
{
    struct spdk_nvme_ns *ns = spdk_nvme_ctrlr_get_ns(controller, id);
    const struct spdk_nvme_ns_data *data;
    uint32_t flags;

    if (ns == NULL || !spdk_nvme_ns_is_active(ns)) {
        return -ENOENT;
    }
    data = spdk_nvme_ns_get_data(ns);
    flags = spdk_nvme_ns_get_flags(ns);
    memset(info, 0, sizeof(*info));
    info->sectors = spdk_nvme_ns_get_num_sectors(ns);
    info->sector_size = spdk_nvme_ns_get_sector_size(ns);
    info->metadata_size = spdk_nvme_ns_get_md_size(ns);
    info->protection_type = (uint32_t)spdk_nvme_ns_get_pi_type(ns);
    if (flags & SPDK_NVME_NS_WRITE_ZEROES_SUPPORTED) {
        info->features |= OGEE_NVME_HAS_WRITE_ZEROES;
    }
    if (flags & SPDK_NVME_NS_DEALLOCATE_SUPPORTED) {
        info->features |= OGEE_NVME_HAS_DEALLOCATE;
    }
    if (data->dlfeat.bits.read_value == SPDK_NVME_DEALLOC_READ_00) {
        info->features |= OGEE_NVME_DEALLOCATED_READS_ZERO;
    }
    if (data->dlfeat.bits.write_zero_deallocate) {
        info->features |= OGEE_NVME_WRITE_ZEROES_MAY_DEALLOCATE;
    }
    return 0;
}

static int queue_open(void *controller, uint32_t depth, void **queue)
{
    struct spdk_nvme_io_qpair_opts opts;

    spdk_nvme_ctrlr_get_default_io_qpair_opts(controller, &opts, sizeof(opts));
    opts.io_queue_size = depth;
    opts.io_queue_requests = depth * REQUESTS_PER_ENTRY;
    *queue = spdk_nvme_ctrlr_alloc_io_qpair(controller, &opts, sizeof(opts));
    return *queue == NULL ? -ENOMEM : 0;
}

static int queue_close(void *queue)
{
    return spdk_nvme_ctrlr_free_io_qpair(queue);
}

static void completed(void *arg, const struct spdk_nvme_cpl *cpl)
{
    struct ogee_nvme_command *command = arg;

    command->done(command->context, (uint16_t)(cpl->status.sct << 8 | cpl->status.sc));
}

static void rewind_segments(void *arg, uint32_t offset)
{
    struct ogee_nvme_command *command = arg;

    command->at_segment = 0;
    command->at_offset = offset;
    while (command->at_segment < command->segment_count &&
           command->at_offset >= command->segments[command->at_segment].length) {
        command->at_offset -= command->segments[command->at_segment].length;
        command->at_segment++;
    }
}

static int next_segment(void *arg, void **address, uint32_t *length)
{
    struct ogee_nvme_command *command = arg;
    const struct ogee_nvme_segment *segment;

    if (command->at_segment >= command->segment_count) {
        *address = NULL;
        *length = 0;
        return -EINVAL;
    }
    segment = &command->segments[command->at_segment];
    *address = (char *)segment->address + command->at_offset;
    *length = (uint32_t)(segment->length - command->at_offset);
    command->at_segment++;
    command->at_offset = 0;
    return 0;
}

static int deallocate(struct spdk_nvme_ns *ns, struct spdk_nvme_qpair *queue, struct ogee_nvme_command *command)
{
    struct spdk_nvme_dsm_range range;

    memset(&range, 0, sizeof(range));
    range.starting_lba = command->first_sector;
    range.length = command->sectors;
    /* SPDK copies the range. */
    return spdk_nvme_ns_cmd_dataset_management(ns, queue, SPDK_NVME_DSM_ATTR_DEALLOCATE, &range, 1, completed,
                                               command);
}

/* Bits 20 to 31 of the flags are those of command dword 12; write-zeroes has Deallocate there. */
#define CDW12_DEALLOCATE (1U << 25)

static int queue_submit(void *queue, void *controller, struct ogee_nvme_command *command)
{
    /* Anew each time: a reset may replace it. */
    struct spdk_nvme_ns *ns = spdk_nvme_ctrlr_get_ns(controller, command->namespace_id);
    uint32_t flags = 0;

    if (ns == NULL) {
        return -ENXIO;
    }
    if (command->flags & OGEE_NVME_FORCE_UNIT_ACCESS) {
        flags |= SPDK_NVME_IO_FLAGS_FORCE_UNIT_ACCESS;
    }
    if (command->flags & OGEE_NVME_MAY_DEALLOCATE) {
        flags |= CDW12_DEALLOCATE;
    }
    switch (command->kind) {
    case OGEE_NVME_READ:
        return spdk_nvme_ns_cmd_readv(ns, queue, command->first_sector, command->sectors, completed, command,
                                      flags, rewind_segments, next_segment);
    case OGEE_NVME_WRITE:
        return spdk_nvme_ns_cmd_writev(ns, queue, command->first_sector, command->sectors, completed, command,
                                       flags, rewind_segments, next_segment);
    case OGEE_NVME_FLUSH:
        return spdk_nvme_ns_cmd_flush(ns, queue, completed, command);
    case OGEE_NVME_WRITE_ZEROES:
        return spdk_nvme_ns_cmd_write_zeroes(ns, queue, command->first_sector, command->sectors, completed,
                                             command, flags);
    case OGEE_NVME_DEALLOCATE:
        return deallocate(ns, queue, command);
    default:
        return -EINVAL;
    }
}

static int queue_poll(void *queue, uint32_t completions_max)
{
    return spdk_nvme_qpair_process_completions(queue, completions_max);
}

static int queue_descriptor(void *queue)
{
#if OGEE_NVME_INTERRUPTS
    int descriptor = spdk_nvme_qpair_get_fd(queue, NULL);

    /* SPDK says -1 where there are none. */
    return descriptor >= 0 ? descriptor : -ENOTSUP;
#else
    (void)queue;
    return -ENOTSUP;
#endif
}

const struct ogee_nvme_table *ogee_nvme_spdk(void)
{
    static const struct ogee_nvme_table table = {
        .abi = OGEE_NVME_ABI,
        .version = SPDK_VERSION_MAJOR << 16 | SPDK_VERSION_MINOR,
        .abilities = OGEE_NVME_INTERRUPTS ? OGEE_NVME_CAN_INTERRUPT : 0,
        .env_start = env_start,
        .memory_take = memory_take,
        .memory_give = spdk_free,
        .memory_reach = memory_reach,
        .controller_open = controller_open,
        .controller_close = controller_close,
        .controller_info = controller_info,
        .controller_state = controller_state,
        .controller_poll = controller_poll,
        .health_start = health_start,
        .reset_start = reset_start,
        .reset_poll = reset_poll,
        .namespace_info = namespace_info,
        .queue_open = queue_open,
        .queue_close = queue_close,
        .queue_submit = queue_submit,
        .queue_poll = queue_poll,
        .queue_descriptor = queue_descriptor,
    };

    return &table;
}
