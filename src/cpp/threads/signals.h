// Threads of ours take none of the host's signals.
#pragma once

#if !defined(_WIN32)
#include <signal.h>

#include <initializer_list>
#endif

namespace fastrnn {

// In its scope a signal to the process goes to another thread, and a thread that is started here inherits that for its
// life. It would inherit the mask that its starter had then: a host that blocks SIGTERM later, to wait for it in a
// thread of its own, would be ended when a helper took it. Left alone are signals that a thread raises itself (where
// they are blocked, the process ends without its handlers), and SIGPROF, which profilers want from whoever computes.
class SignalsElsewhere {
 public:
  SignalsElsewhere(const SignalsElsewhere&) = delete;
  SignalsElsewhere& operator=(const SignalsElsewhere&) = delete;
#if defined(_WIN32)
  SignalsElsewhere() {}
#else
  SignalsElsewhere() {
    sigset_t most;
    sigfillset(&most);
    for (const int own : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, SIGPROF}) sigdelset(&most, own);
    changed_ = pthread_sigmask(SIG_BLOCK, &most, &before_) == 0;
  }
  ~SignalsElsewhere() {
    if (changed_) pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

 private:
  sigset_t before_;
  bool changed_;
#endif
};

}  // namespace fastrnn
