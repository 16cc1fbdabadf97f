// What a stream or a pool does takes no memory, no lock and no system call. Memory and locks are counted where they can
// be interposed (glibc, no sanitizer); system calls by a child process that the Linux kernel kills for making one.
// Built with -fsanitize=realtime, the same calls are watched by Clang's RealtimeSanitizer.
#include <cstdlib>

#include "tests/api_check.h"
#include "tests/interpose.h"

#if defined(__linux__) && !defined(FASTRNN_SANITIZED)
#define FASTRNN_SECCOMP 1
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace fastrnn::tests {
namespace {

constexpr int kRows = 2;

template <class T>
Layer<T> made_ready(const Config& config, bool coarse) {
  Layer<T> layer = ready_layer<T>(config);
  if (!coarse) return layer;
  set_coarse(layer);
  required(layer.prepare());
  return layer;
}

// One of each of the calls that promise it, a few times, of several rows and of one; a head on top.
template <class T>
struct Audio {
  explicit Audio(const Config& config, bool coarse = false)
      : layer(made_ready<T>(config, coarse)),
        stream(required(layer.stream(kRows))),
        single(required(layer.stream())),
        pool(required(layer.pool(kRows))),
        head(required(Linear<T>::make(config.output_size(), 3))),
        x(draw<T>(size_t(kRows * config.input_size * 8), 1)),
        y(size_t(kRows * config.output_size() * 8)),
        h(size_t(config.num_layers * kRows * config.output_size())),
        c(size_t(config.num_layers * kRows * config.hidden_size)),
        inputs(config.input_size),
        outputs(config.output_size()),
        has_c(stream.get_state(h.data(), nullptr) != Status::ok) {  // which asks for c then
    const auto w = draw<T>(size_t(outputs * 3), 2);
    required(head.set(w.data(), w.data()));
  }

  Status callback() FASTRNN_NONBLOCKING {
    T out[3 * kRows * 8];
    bool ok = stream.step(x.data(), y.data()) == Status::ok;
    ok = ok && stream.process(8, x.data(), kRows * inputs, inputs, y.data(), kRows * outputs, outputs) == Status::ok;
    ok = ok && single.step(x.data(), y.data()) == Status::ok;
    ok = ok && single.process(8, x.data(), inputs, inputs, y.data(), outputs, outputs) == Status::ok;
    ok = ok && head.step(y.data(), out) == Status::ok;
    ok = ok && head.process(kRows * 8, y.data(), outputs, out, 3) == Status::ok;
    ok = ok && stream.input_size() == inputs && stream.output_size() == outputs && stream.batch_size() == kRows;
    ok = ok && stream.get_state(h.data(), has_c ? c.data() : nullptr) == Status::ok;
    ok = ok && stream.set_state(h.data(), has_c ? c.data() : nullptr) == Status::ok;
    ok = ok && stream.reset(1) == Status::ok && stream.step(nullptr, y.data()) == Status::invalid_argument;
    return ok && voices() ? Status::ok : Status::internal;
  }

  bool voices() FASTRNN_NONBLOCKING {
    int64_t ids[kRows], one_too_many;
    bool ok = true;
    for (int64_t& id : ids) ok = ok && pool.join(&id) == Status::ok;
    ok = ok && pool.join(&one_too_many) == Status::full && pool.size() == kRows && pool.capacity() == kRows;
    ok = ok && pool.step(ids, kRows, x.data(), y.data()) == Status::ok;
    ok = ok && pool.step(ids, 1, x.data(), y.data()) == Status::ok;
    ok = ok && pool.process(ids, kRows, 8, x.data(), kRows * inputs, inputs, y.data(), kRows * outputs, outputs) ==
                   Status::ok;
    ok = ok && pool.get_state(ids[0], h.data(), has_c ? c.data() : nullptr) == Status::ok;
    ok = ok && pool.set_state(ids[1], h.data(), has_c ? c.data() : nullptr) == Status::ok;
    ok = ok && pool.reset(ids, kRows) == Status::ok && pool.reset(ids[0]) == Status::ok;
    ok = ok && pool.input_size() == inputs && pool.output_size() == outputs;
    ok = ok && pool.step(ids, kRows, nullptr, y.data()) == Status::invalid_argument;
    for (const int64_t id : ids) ok = ok && pool.leave(id) == Status::ok && !pool.contains(id);
    return ok && pool.step(ids, kRows, x.data(), y.data()) == Status::invalid_argument;
  }

  Layer<T> layer;
  Stream<T> stream, single;
  StreamPool<T> pool;
  Linear<T> head;
  std::vector<T> x, y, h, c;
  int inputs, outputs;
  bool has_c;
};

template <class T>
void takes_nothing(const Config& config, bool coarse = false) {
  Audio<T> audio(config, coarse);
  const Calls before = calls();
  bool ok = true;
  for (int i = 0; i < 100; ++i) ok = audio.callback() == Status::ok && ok;  // the first call as well: nothing is lazy
  const Calls after = calls();
  CHECK(ok, "a call failed");
  CHECK(after.allocations == before.allocations, "%ld allocations", after.allocations - before.allocations);
  CHECK(after.frees == before.frees, "%ld frees", after.frees - before.frees);
  CHECK(after.locks == before.locks, "%ld locks", after.locks - before.locks);
}

// The counters count: or the test above would pass whatever happens.
void counters_count() {
  const Layer<float> layer = ready_layer<float>(config_of(Cell::lstm, 2, 3));
  const Calls before = calls();
  required(layer.stream());  // takes memory, and gives it back
  required(layer.run({}));   // takes a lock for its pool of memory
  const Calls after = calls();
  CHECK(after.allocations > before.allocations && after.frees > before.frees, "allocations are not counted");
  CHECK(after.locks > before.locks, "locks are not counted");
}

#if defined(FASTRNN_SECCOMP)
// The exit status of body() in a child that may do nothing but read, write and exit; -1 when the kernel killed it.
template <class Body>
int without_system_calls(Body body) {
  const pid_t child = fork();
  if (child == 0) {
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0) syscall(SYS_exit, 3);
    syscall(SYS_exit, body() ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

template <class T>
void calls_no_kernel(const Config& config, bool coarse = false) {
  Audio<T> audio(config, coarse);
  const int status = without_system_calls([&] {
    bool ok = true;
    for (int i = 0; i < 100; ++i) ok = audio.callback() == Status::ok && ok;
    return ok;
  });
  CHECK(status == 0, "a step made a system call (status %d)", status);
}

bool kernel_watches() {
  const bool watches = without_system_calls([] { return syscall(SYS_getppid) > 0; }) == -1;
  if (!watches) std::printf("skipped: this system has no strict seccomp\n");
  return watches && without_system_calls([] { return true; }) == 0;
}
#else
bool kernel_watches() { return false; }
template <class T>
void calls_no_kernel(const Config&, bool = false) {}
#endif

}  // namespace

void test_real_time() {
  if (interposes()) counters_count();
  const bool watched = kernel_watches();
  std::vector<Config> configs = {config_of(Cell::lstm, 1, 32), config_of(Cell::lstm, 3, 20, 2, 7),
                                 config_of(Cell::gru, 5, 64), config_of(Cell::rnn_tanh, 40, 130),
                                 config_of(Cell::rnn_relu, 2, 3, 4)};
  for (int cell = 0; Layer<float>::make(config_of(Cell(cell), 1, 1)); ++cell)
    configs.push_back(config_of(Cell(cell), 3, 20));
  for (const Config& config : configs) {
    takes_nothing<float>(config), takes_nothing<double>(config);
    if (watched) calls_no_kernel<float>(config), calls_no_kernel<double>(config);
  }
  for (const Config& config : {config_of(Cell::lstm, 13, 100, 2, 30), config_of(Cell::gru, 64, 128)}) {
    takes_nothing<float>(config, true);
    if (watched) calls_no_kernel<float>(config, true);
  }
  std::printf("real time: memory and locks %s, system calls %s\n", interposes() ? "counted" : "not counted",
              watched ? "watched by the kernel" : "not watched");
}

}  // namespace fastrnn::tests
