/* SPDX-License-Identifier: MIT */
#pragma once

/* Guests without operating system, of some bytes: files that QEMU takes as kernels, for tests of drivers. */

#include "unit.h"

#include <elf.h>
#include <string.h>

#include "base/fs.h"

#define LOAD_ADDRESS 0x100000

/* What the guest does when it has printed its line. */
typedef enum End {
    END_HALT,
    END_RESET,
} End;

static const char guest_text[] = "hello from the guest\r\n";

/* An arm64 Image (Documentation/arch/arm64/booting.rst) that prints on the PL011, ten times a fifth of a second
 * apart (no firmware delays it, and a console that is not connected yet is not printed on), then waits for
 * interrupts, or has PSCI reset it. */
static inline void write_arm64_guest(const char *path, End end)
{
    static const uint32_t ends[][4] = {
        [END_HALT] = {0xd503207f, 0x17ffffff},              /* wfi; b wfi */
        [END_RESET] = {0x52b08000, 0x72800120, 0xd4000002}, /* w0 = 0x84000009; hvc #0 */
    };
    struct {
        uint32_t branch, zero;
        uint64_t text_offset, size, flags, more_zeros[3];
        uint32_t magic, last_zero;
        uint32_t code[17], end[18];
        char text[64];
        uint8_t pad[4096];
    } image = {
        .branch = 0x14000010, /* b code */
        .size = sizeof(image),
        .flags = 0xa, /* little-endian, 4 KiB pages, anywhere */
        .magic = 0x644d5241,
        .code = {0xd2800145,  /* mov x5, #10 */
                 0xd53be003,  /* mrs x3, cntfrq_el0 */
                 0xd28000a6,  /* mov x6, #5 */
                 0x9ac60863,  /* udiv x3, x3, x6 */
                 0xd53be044,  /* again: mrs x4, cntvct_el0 */
                 0x8b040066,  /* add x6, x3, x4 */
                 0xd53be044,  /* wait: mrs x4, cntvct_el0 */
                 0xeb06009f,  /* cmp x4, x6 */
                 0x54ffffc3,  /* b.lo wait */
                 0x10000340,  /* adr x0, text */
                 0xd2a12001,  /* mov x1, #0x9000000 */
                 0x38401402,  /* print: ldrb w2, [x0], #1 */
                 0x34000062,  /* cbz w2, next */
                 0xb9000022,  /* str w2, [x1] */
                 0x17fffffd,  /* b print */
                 0xf10004a5,  /* next: subs x5, x5, #1 */
                 0x54fffe81}, /* b.ne again */
    };

    memcpy(image.end, ends[end], sizeof(ends[end]));
    memcpy(image.text, guest_text, sizeof(guest_text));
    assert_int_equal(fs_write_file_atomic(path, &image, sizeof(image), 0644), 0);
}

/* An ELF file with a PVH entry (Xen's note 18), entered in 32-bit protected mode, that prints on the UART, then
 * halts (hlt; jmp), or resets (lidt of nothing; int3). */
static inline void write_x86_guest(const char *path, End end)
{
    static const uint8_t ends[][8] = {
        [END_HALT] = {0xf4, 0xeb, 0xfd},
        [END_RESET] = {0x0f, 0x01, 0x1d, 0x00, 0x00, 0x00, 0x00, 0xcc},
    };
    static const uint8_t print[] = {
        0xbe, 0,    0,    0,    0, /* mov esi, text */
        0x66, 0xba, 0xf8, 0x03,    /* mov dx, 0x3f8 */
        0xac,                      /* lodsb */
        0x84, 0xc0,                /* test al, al */
        0x74, 0x03,                /* jz +3 */
        0xee,                      /* out dx, al */
        0xeb, 0xf8,                /* jmp lodsb */
    };
    struct {
        Elf64_Ehdr ehdr;
        Elf64_Phdr load, note;
        Elf64_Nhdr nhdr;
        char name[4];
        uint64_t entry;
        uint8_t code[128];
        uint8_t pad[4096];
    } image = {
        .ehdr = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                 .e_type = ET_EXEC,
                 .e_machine = EM_X86_64,
                 .e_version = EV_CURRENT,
                 .e_entry = LOAD_ADDRESS,
                 .e_phoff = sizeof(Elf64_Ehdr),
                 .e_ehsize = sizeof(Elf64_Ehdr),
                 .e_phentsize = sizeof(Elf64_Phdr),
                 .e_phnum = 2},
        .nhdr = {.n_namesz = 4, .n_descsz = 8, .n_type = 18},
        .name = "Xen",
    };
    uint32_t text;

    image.load = (Elf64_Phdr){.p_type = PT_LOAD, .p_flags = PF_R | PF_W | PF_X, .p_align = 4096};
    image.load.p_paddr = image.load.p_vaddr = LOAD_ADDRESS;
    image.load.p_filesz = image.load.p_memsz = sizeof(image);
    image.note = (Elf64_Phdr){.p_type = PT_NOTE, .p_flags = PF_R, .p_align = 4};
    image.note.p_offset = (uint64_t)((uint8_t *)&image.nhdr - (uint8_t *)&image);
    image.note.p_paddr = image.note.p_vaddr = LOAD_ADDRESS + image.note.p_offset;
    image.note.p_filesz = image.note.p_memsz = sizeof(Elf64_Nhdr) + 12;
    image.entry = LOAD_ADDRESS + (uint64_t)(image.code - (uint8_t *)&image);
    memcpy(image.code, print, sizeof(print));
    memcpy(image.code + sizeof(print), ends[end], sizeof(ends[end]));
    text = (uint32_t)image.entry + 64;
    memcpy(image.code + 1, &text, sizeof(text));
    memcpy(image.code + 64, guest_text, sizeof(guest_text));
    assert_int_equal(fs_write_file_atomic(path, &image, sizeof(image), 0644), 0);
}
