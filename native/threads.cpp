#include "threads.hpp"

#include <pthread.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace luce {
namespace {

constexpr std::size_t kMostThreads = 256;

using Work = std::function<void(std::size_t, std::size_t)>;

class Pool {
 public:
  // False when another caller has the pool.
  bool run(std::size_t n, std::size_t parts, const Work& work) {
    std::unique_lock<std::mutex> owner(owner_, std::try_to_lock);
    if (!owner) return false;
    try {
      while (threads_.size() + 1 < parts)
        threads_.emplace_back([this, id = threads_.size() + 1] { serve(id); });
    } catch (const std::system_error&) {
      parts = threads_.size() + 1;  // the system gives no more
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      work_ = &work;
      n_ = n;
      parts_ = parts;
      pending_ = parts - 1;
      ++round_;
    }
    wake_.notify_all();
    do_part(0, n, parts, work);
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return pending_ == 0; });
    return true;
  }

 private:
  static void do_part(std::size_t part, std::size_t n, std::size_t parts, const Work& work) {
    const std::size_t first = n * part / parts, last = n * (part + 1) / parts;
    if (first < last) work(first, last);
  }

  void serve(std::size_t id) {
    std::size_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      wake_.wait(lock, [&] { return round_ != seen; });
      seen = round_;
      if (id >= parts_) continue;
      const Work& work = *work_;
      const std::size_t n = n_, parts = parts_;
      lock.unlock();
      do_part(id, n, parts, work);
      lock.lock();
      if (--pending_ == 0) done_.notify_one();
    }
  }

  std::mutex owner_, mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> threads_;
  const Work* work_ = nullptr;
  std::size_t n_ = 0, parts_ = 0, pending_ = 0, round_ = 0;
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

void split_rows(std::size_t n, int n_threads, const Work& work) {
  const std::size_t wanted = n_threads < 1 ? 1 : static_cast<std::size_t>(n_threads);
  const std::size_t parts = std::min({n, wanted, kMostThreads});
  if (parts <= 1 || !the_pool().run(n, parts, work)) work(0, n);
}

}  // namespace luce
