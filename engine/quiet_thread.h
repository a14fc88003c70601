// A thread beside those that compute: signals are not for it.
#pragma once
#include <pthread.h>

#include <csignal>
#include <thread>
#include <utility>

namespace lc {

template <class Body>
std::thread quiet_thread(Body&& body) {
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread thread(std::forward<Body>(body));
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return thread;
}

}  // namespace lc
