#include "threads.hpp"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace luce {
namespace {

constexpr std::size_t kMostThreads = 256;

using Work = std::function<void(std::size_t, std::size_t)>;

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Wait for a short while, awake: to fall asleep and be woken takes longer than many a call.
template <class Condition>
inline void wait_awake(std::chrono::microseconds longest, const Condition& come) {
  constexpr int kLooks = 32;  // between two looks at the clock
  const auto end = std::chrono::steady_clock::now() + longest;
  do {
    for (int i = 0; i < kLooks; ++i) {
      if (come()) return;
      relax();
    }
  } while (std::chrono::steady_clock::now() < end);
}

// Work is cut into more pieces than there are threads, and whoever is free takes the next: a thread that
// wakes late, or shares its core, costs little.
class Pool {
 public:
  // False when another caller has the pool.
  bool run(std::size_t n, std::size_t threads, std::size_t multiple, const Work& work) {
    std::unique_lock<std::mutex> owner(owner_, std::try_to_lock);
    if (!owner) return false;
    try {
      while (threads_.size() + 1 < threads) threads_.emplace_back([this] { serve(); });
    } catch (const std::system_error&) {
      threads = threads_.size() + 1;  // the system gives no more
    }
    const std::size_t wanted = n / (threads * kPiecesEach);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      work_ = &work;
      n_ = n;
      piece_ = std::max<std::size_t>(1, wanted / multiple * multiple);
      next_.store(0, std::memory_order_relaxed);
      places_ = threads - 1;
      error_ = nullptr;
      round_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    take_pieces();
    std::unique_lock<std::mutex> lock(mutex_);
    places_ = 0;  // who comes now comes too late
    lock.unlock();
    wait_awake(kLastPiece, [this] { return active_.load(std::memory_order_acquire) == 0; });
    lock.lock();
    done_.wait(lock, [this] { return active_ == 0; });
    if (error_) std::rethrow_exception(error_);
    return true;
  }

 private:
  static constexpr std::size_t kPiecesEach = 8;
  static constexpr std::chrono::microseconds kNextCall{100}, kLastPiece{50};

  void take_pieces() {
    try {
      while (true) {
        const std::size_t first = next_.fetch_add(piece_, std::memory_order_relaxed);
        if (first >= n_) return;
        (*work_)(first, std::min(n_, first + piece_));
      }
    } catch (...) {
      next_.store(n_, std::memory_order_relaxed);
      std::lock_guard<std::mutex> lock(mutex_);
      error_ = std::current_exception();
    }
  }

  void serve() {
    std::size_t seen = 0;
    while (true) {
      wait_awake(kNextCall, [&] { return round_.load(std::memory_order_acquire) != seen; });
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return round_.load(std::memory_order_relaxed) != seen; });
      seen = round_.load(std::memory_order_relaxed);
      if (places_ == 0) continue;
      --places_;
      ++active_;
      lock.unlock();
      take_pieces();
      lock.lock();
      if (--active_ == 0) done_.notify_one();
    }
  }

  std::mutex owner_, mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> threads_;
  const Work* work_ = nullptr;
  std::size_t n_ = 0, piece_ = 1, places_ = 0;
  std::atomic<std::size_t> next_{0}, round_{0}, active_{0};
  std::exception_ptr error_;
};

// Never destroyed: its threads sleep until the process ends. After a fork the child starts with a new one,
// since threads and locks of the parent do not exist there.
Pool* pool = nullptr;

Pool& the_pool() {
  static const bool once = [] {
    pool = new Pool;
    pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });
    return true;
  }();
  (void)once;
  return *pool;
}

}  // namespace

void split_rows(std::size_t n, int n_threads, std::size_t multiple, const Work& work) {
  const std::size_t wanted = n_threads < 1 ? 1 : static_cast<std::size_t>(n_threads);
  const std::size_t threads = std::min({n, wanted, kMostThreads});
  if (threads <= 1 || !the_pool().run(n, threads, multiple, work)) work(0, n);
}

}  // namespace luce
