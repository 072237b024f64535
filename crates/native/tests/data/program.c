/* A program without a C library, whose stacks are stored beside the tests: recursion, frames of a size that is known at run
 * time only, realigned frames, calls by pointers, tail calls and a signal handler. It ends by itself. */

typedef unsigned long word;

static volatile word sink;

static word system_call(word number, word a, word b, word c, word d)
{
    word result;
    register word r10 asm("r10") = d;
    asm volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
}

asm(".globl __restore_rt\n.type __restore_rt,@function\n__restore_rt:\n mov $15, %rax\n syscall\n.size __restore_rt, . - __restore_rt\n");
void __restore_rt(void);

__attribute__((noinline)) static word leaf(word a, word b)
{
    for (word i = 0; i < 3; i++)
        sink += a ^ (b << i);
    return sink;
}

__attribute__((noinline)) static word saves_registers(word a, word b, word c)
{
    word x = leaf(a, b), y = leaf(b, c), z = leaf(c, a);
    return x * leaf(x, y) + y * leaf(y, z) + z * a + b * c;
}

__attribute__((noinline)) static word of_unknown_size(word n)
{
    char bytes[n];
    for (word i = 0; i < n; i += 16)
        bytes[i] = (char)i;
    sink += (word)bytes[n / 2];
    return saves_registers(n, sink, 3) + (word)bytes[0];
}

__attribute__((noinline)) static word realigned(word n)
{
    char bytes[n * 8] __attribute__((aligned(64)));
    for (word i = 0; i < n * 8; i += 32)
        bytes[i] = (char)i;
    return of_unknown_size(n) + (word)bytes[n];
}

__attribute__((noinline)) static word tail(word n)
{
    sink += n;
    return saves_registers(n, n + 1, n + 2);
}

static word (*const functions[])(word) = {realigned, of_unknown_size, tail};

__attribute__((noinline)) static word recursive(word n)
{
    word x = functions[n % 3](n + 24);
    return n ? x + recursive(n - 1) : x;
}

__attribute__((noinline)) static void handler(int number)
{
    sink += recursive((word)number % 4);
}

struct action {
    void (*handler)(int);
    word flags;
    void (*restorer)(void);
    word mask;
};

__attribute__((used)) static void run(void)
{
    struct action action = {handler, 0x04000000, __restore_rt, 0};
    system_call(13, 10, (word)&action, 0, 8);
    for (word i = 0; i < 6; i++) {
        sink += recursive(i);
        system_call(62, system_call(39, 0, 0, 0, 0), 10, 0, 0);
    }
    system_call(60, 0, 0, 0, 0);
}

asm(".globl _start\n.type _start,@function\n_start:\n .cfi_startproc\n .cfi_undefined %rip\n xor %ebp, %ebp\n"
    " and $-16, %rsp\n call run\n hlt\n .cfi_endproc\n.size _start, . - _start\n");
