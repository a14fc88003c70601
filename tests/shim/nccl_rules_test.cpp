// The rules of NCCL's twin: each is broken on purpose and must be said.
#include <gtest/gtest.h>

#include <array>
#include <barrier>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "tests/shim/nccl.h"

namespace lc::test {
namespace {

constexpr std::size_t kCount = 5;

// One rank: a thread with a GPU of its own, a communicator, and some numbers there.
struct Rank {
  int rank = 0;
  ncclComm_t comm = nullptr;
  float* numbers = nullptr;   // (2 · kCount) on its GPU, each its rank + 1
  float* gathered = nullptr;  // (4 · kCount)
  std::barrier<>* all = nullptr;

  ncclResult_t state() const {
    ncclResult_t now = ncclSuccess;
    const ncclResult_t asked = ncclCommGetAsyncError(comm, &now);
    return asked == ncclSuccess ? now : asked;
  }
  ncclResult_t wait(ncclResult_t result) const {
    while (result == ncclInProgress) result = state();
    return result;
  }
  // What went wrong, once everything asked for is done; "" when nothing did.
  std::string outcome(ncclResult_t result) const {
    result = wait(result);
    cudaStreamSynchronize(nullptr);
    all->arrive_and_wait();
    if (result == ncclSuccess) result = state();
    return result == ncclSuccess ? "" : std::string(ncclGetErrorString(result)) + ": " + ncclGetLastError(comm);
  }
  ncclResult_t sum(std::size_t count = kCount, ncclDataType_t type = ncclFloat, ncclRedOp_t op = ncclSum) const {
    return ncclAllReduce(numbers, numbers, count, type, op, comm, nullptr);
  }
};

// Runs body on each of `ranks` ranks, started and ended in order.
void on_gpus(int ranks, const std::function<void(Rank&)>& body) {
  shim::device_count = ranks;
  ncclUniqueId id{};
  ncclGetUniqueId(&id);
  std::barrier all(ranks);
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; ++r) {
    threads.emplace_back([&, r] {
      Rank me{.rank = r, .all = &all};
      ASSERT_EQ(cudaSetDevice(r), cudaSuccess);
      cudaMalloc(reinterpret_cast<void**>(&me.numbers), 2 * kCount * sizeof(float));
      cudaMalloc(reinterpret_cast<void**>(&me.gathered), 4 * kCount * sizeof(float));
      std::fill_n(me.numbers, 2 * kCount, static_cast<float>(r + 1));
      ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
      config.blocking = 0;
      EXPECT_EQ(me.wait(ncclCommInitRankConfig(&me.comm, ranks, id, r, &config)), ncclSuccess);
      body(me);
      all.arrive_and_wait();
      if (me.comm) ncclCommAbort(me.comm);
      cudaFree(me.numbers), cudaFree(me.gathered);
    });
  }
  for (std::thread& t : threads) t.join();
  shim::device_count = 1;
}

void expect_said(int ranks, const std::string& part, const std::function<ncclResult_t(const Rank&)>& call) {
  on_gpus(ranks, [&](const Rank& me) {
    const std::string said = me.outcome(call(me));
    EXPECT_NE(said.find(part), std::string::npos) << "rank " << me.rank << ": " << said;
  });
}

TEST(NcclRules, TheSumIsEverybodys) {
  on_gpus(3, [](const Rank& me) {
    EXPECT_EQ(me.outcome(me.sum()), "");
    for (std::size_t i = 0; i < 2 * kCount; ++i) EXPECT_EQ(me.numbers[i], i < kCount ? 6.0f : static_cast<float>(me.rank + 1)) << i;
  });
}
TEST(NcclRules, GatheredRowsLieInTheOrderOfTheRanks) {
  on_gpus(4, [](const Rank& me) {
    EXPECT_EQ(me.outcome(ncclAllGather(me.numbers, me.gathered, kCount, ncclFloat, me.comm, nullptr)), "");
    for (std::size_t i = 0; i < 4 * kCount; ++i) EXPECT_EQ(me.gathered[i], static_cast<float>(i / kCount + 1)) << i;
  });
}
TEST(NcclRules, ABroadcastIsTheRoots) {
  on_gpus(2, [](const Rank& me) {
    EXPECT_EQ(me.outcome(ncclBroadcast(me.numbers, me.numbers, kCount, ncclFloat, 1, me.comm, nullptr)), "");
    EXPECT_EQ(me.numbers[0], 2.0f);
  });
}
TEST(NcclRules, ACollectiveWaitsInItsStream) {
  on_gpus(2, [](const Rank& me) {
    if (me.rank == 0) {
      EXPECT_EQ(me.wait(me.sum()), ncclSuccess);
      EXPECT_EQ(me.numbers[0], 1.0f) << "done before the other rank came";
    }
    me.all->arrive_and_wait();
    EXPECT_EQ(me.outcome(me.rank == 1 ? me.sum() : ncclSuccess), "");
    EXPECT_EQ(me.numbers[0], 3.0f);
  });
}
// A stream beside the thread's own.
class Beside {
 public:
  Beside() { cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaEventCreateWithFlags(&reached, cudaEventDisableTiming); }
  ~Beside() { cudaEventDestroy(reached), cudaStreamDestroy(stream); }
  Beside(const Beside&) = delete;
  Beside& operator=(const Beside&) = delete;
  ncclResult_t sum(const Rank& me) const { return ncclAllReduce(me.numbers, me.numbers, kCount, ncclFloat, ncclSum, me.comm, stream); }
  void let_wait(cudaStream_t waiting, cudaStream_t for_other) const {
    cudaEventRecord(reached, for_other), cudaStreamWaitEvent(waiting, reached, 0);
  }
  cudaStream_t stream = nullptr;
  cudaEvent_t reached = nullptr;
};

TEST(NcclRules, ASumInAnotherStreamIsThereWhenTheThreadsOwnHasWaitedForIt) {
  on_gpus(2, [](const Rank& me) {
    const Beside beside;
    beside.let_wait(beside.stream, nullptr);
    EXPECT_EQ(me.wait(beside.sum(me)), ncclSuccess);
    cudaStreamSynchronize(nullptr);
    EXPECT_EQ(me.numbers[0], static_cast<float>(me.rank + 1)) << "its stream waits for nothing";
    EXPECT_EQ(cudaEventQuery(beside.reached), cudaSuccess);
    beside.let_wait(nullptr, beside.stream);
    EXPECT_EQ(cudaEventQuery(beside.reached), cudaErrorNotReady);
    EXPECT_EQ(me.outcome(ncclSuccess), "");
    EXPECT_EQ(me.numbers[0], 3.0f);
  });
}
TEST(NcclRules, ASumInAnotherStreamThatDoesNotWaitForItsNumbersIsAnError) {
  expect_said(2, "does not wait for the work before it", [](const Rank& me) {
    const Beside beside;
    beside.let_wait(beside.stream, nullptr);
    cudaMemsetAsync(me.numbers, 0, kCount * sizeof(float), nullptr);
    return beside.sum(me);
  });
}
TEST(NcclRules, NumbersThatChangeBeforeTheirSumIsDoneAreAnError) {
  expect_said(2, "rank 1 changes values of ncclAllReduce before it is done", [](const Rank& me) {
    const Beside beside;
    beside.let_wait(beside.stream, nullptr);
    me.all->arrive_and_wait();  // nobody is still starting when the error comes
    const ncclResult_t result = me.wait(beside.sum(me));
    if (me.rank == 1) cudaMemsetAsync(me.numbers, 0, sizeof(float), nullptr);
    beside.let_wait(nullptr, beside.stream);
    return result;
  });
}

TEST(NcclRules, AnotherCollectiveThanTheOthersIsAnError) {
  expect_said(3, "invalid usage: rank 2 calls ncclBroadcast of 5 values", [](const Rank& me) {
    return me.rank == 2 ? ncclBroadcast(me.numbers, me.numbers, kCount, ncclFloat, 0, me.comm, nullptr) : me.sum();
  });
}
TEST(NcclRules, AnotherOrderThanTheOthersIsAnError) {
  expect_said(2, "rank 1 calls ncclAllGather", [](const Rank& me) {
    const auto gather = [&] { return ncclAllGather(me.numbers, me.gathered, kCount, ncclFloat, me.comm, nullptr); };
    me.wait(me.rank == 0 ? me.sum() : gather());
    return me.rank == 0 ? gather() : me.sum();
  });
}
TEST(NcclRules, AnotherCountIsAnError) {
  expect_said(2, "rank 1 calls ncclAllReduce of 4 values", [](const Rank& me) { return me.sum(me.rank == 1 ? 4 : kCount); });
}
TEST(NcclRules, AnotherTypeIsAnError) {
  expect_said(2, "values of type 8, operation 0, rank 0 ncclAllReduce of 5 values of type 7",
              [](const Rank& me) { return me.sum(kCount, me.rank == 1 ? ncclDouble : ncclFloat); });
}
TEST(NcclRules, AnotherOperationIsAnError) {
  expect_said(2, "operation 2, rank 0", [](const Rank& me) { return me.sum(kCount, ncclFloat, me.rank == 1 ? ncclMax : ncclSum); });
}
TEST(NcclRules, AnotherRootIsAnError) {
  expect_said(2, "root 1, rank 0",
              [](const Rank& me) { return ncclBroadcast(me.numbers, me.numbers, kCount, ncclFloat, me.rank, me.comm, nullptr); });
}
TEST(NcclRules, AnotherNumberOfCallsInAGroupIsAnError) {
  expect_said(2, "rank 1 calls 1 collectives in a group, rank 0 2", [](const Rank& me) {
    ncclGroupStart();
    me.sum();
    if (me.rank == 0) me.sum();
    return ncclGroupEnd();
  });
}
TEST(NcclRules, MemoryThatIsNotTheGpusIsAnError) {
  expect_said(2, "invalid argument: ncclAllReduce: wanted memory of GPU", [](const Rank& me) {
    static float host[kCount];
    return ncclAllReduce(host, host, kCount, ncclFloat, ncclSum, me.comm, nullptr);
  });
}
TEST(NcclRules, MemoryThatEndsTooEarlyIsAnError) {
  expect_said(2, "wanted memory of GPU", [](const Rank& me) { return me.sum(2 * kCount + 1); });
}
TEST(NcclRules, MemoryOfAnotherRanksGpuIsAnError) {
  static std::array<float*, 2> numbers;
  expect_said(2, "wanted memory of GPU", [](const Rank& me) {
    numbers[static_cast<std::size_t>(me.rank)] = me.numbers;
    me.all->arrive_and_wait();
    float* const other = numbers[static_cast<std::size_t>(1 - me.rank)];
    return ncclAllReduce(other, other, kCount, ncclFloat, ncclSum, me.comm, nullptr);
  });
}
TEST(NcclRules, ACallBeforeTheLastIsDoneIsAnError) {
  expect_said(2, "while the call before is in progress", [](const Rank& me) {
    ncclResult_t result = ncclSuccess;
    while (result == ncclSuccess) result = me.sum();  // until one takes its time
    EXPECT_EQ(result, ncclInProgress);
    return me.sum();
  });
}
TEST(NcclRules, TwoThreadsAtOnceAreAnError) {
  on_gpus(1, [](const Rank& me) {
    std::atomic<int> refused = 0;
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    const auto call = [&] {
      cudaSetDevice(0);
      while (refused == 0 && std::chrono::steady_clock::now() < until) {
        const ncclResult_t result = me.sum();
        refused += result == ncclInvalidUsage;
        me.state();
        cudaStreamSynchronize(nullptr);
      }
    };
    std::thread other(call);
    call();
    other.join();
    EXPECT_GT(refused, 0);
  });
}
TEST(NcclRules, AnAbortedRankIsAnErrorOfTheOthersWhoWaitUntilTheyAbortToo) {
  on_gpus(2, [](Rank& me) {
    if (me.rank == 0) {
      EXPECT_EQ(me.wait(me.sum()), ncclSuccess);
      me.all->arrive_and_wait();
      while (me.state() == ncclSuccess) std::this_thread::yield();
      EXPECT_EQ(me.state(), ncclRemoteError);
      std::thread later([&] { ncclCommAbort(std::exchange(me.comm, nullptr)); });
      cudaStreamSynchronize(nullptr);  // would wait for ever
      later.join();
      EXPECT_EQ(me.numbers[0], 1.0f);
    } else {
      me.all->arrive_and_wait();
      ncclCommAbort(std::exchange(me.comm, nullptr));
    }
  });
}
TEST(NcclRules, ACommunicatorThatIsGoneIsAnError) {
  on_gpus(1, [](Rank& me) {
    const ncclComm_t gone = std::exchange(me.comm, nullptr);
    ncclCommAbort(gone);
    EXPECT_EQ(ncclAllReduce(me.numbers, me.numbers, kCount, ncclFloat, ncclSum, gone, nullptr), ncclInvalidArgument);
    EXPECT_EQ(ncclCommDestroy(gone), ncclInvalidArgument);
    EXPECT_EQ(ncclCommFinalize(gone), ncclInvalidArgument);
    EXPECT_EQ(ncclCommAbort(gone), ncclInvalidArgument);
  });
}
TEST(NcclRules, RanksLeaveTogether) {
  on_gpus(2, [](Rank& me) {
    if (me.rank == 0) {
      EXPECT_EQ(ncclCommFinalize(me.comm), ncclInProgress);
      EXPECT_EQ(me.state(), ncclInProgress);
    }
    me.all->arrive_and_wait();
    if (me.rank == 1) ncclCommFinalize(me.comm);
    EXPECT_EQ(me.wait(ncclInProgress), ncclSuccess);
    me.all->arrive_and_wait();
    EXPECT_EQ(ncclCommDestroy(std::exchange(me.comm, nullptr)), ncclSuccess);
  });
}

// Starts that go wrong: what the last of these ranks is told.
std::string start(const std::vector<std::array<int, 3>>& rank_size_device, bool made, int blocking = 0) {
  shim::device_count = 4;
  ncclUniqueId id{};
  if (made) ncclGetUniqueId(&id);
  std::vector<ncclComm_t> comms;
  std::string said;
  for (const auto& [rank, size, device] : rank_size_device) {
    cudaSetDevice(device);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = blocking;
    ncclComm_t comm = nullptr;
    ncclResult_t result = ncclCommInitRankConfig(&comm, size, id, rank, &config);
    if (comm) comms.push_back(comm), ncclCommGetAsyncError(comm, &result);
    said = std::string(ncclGetErrorString(result)) + ": " + ncclGetLastError(comm);
  }
  for (const ncclComm_t c : comms) ncclCommAbort(c);
  shim::device_count = 1;
  cudaSetDevice(0);
  return said;
}
#define EXPECT_NCCL_SAID(text, part) EXPECT_NE(std::string(text).find(part), std::string::npos) << (text)

TEST(NcclRules, AStartWaitsForAllRanks) { EXPECT_NCCL_SAID(start({{0, 3, 0}, {1, 3, 1}}, true), "in progress"); }
TEST(NcclRules, TwoRanksOnOneGpuAreAnError) { EXPECT_NCCL_SAID(start({{0, 2, 3}, {1, 2, 3}}, true), "invalid usage: Duplicate GPU"); }
TEST(NcclRules, TwoRanksOfOneNumberAreAnError) { EXPECT_NCCL_SAID(start({{1, 2, 0}, {1, 2, 1}}, true), "invalid argument: rank 1 of 2"); }
TEST(NcclRules, AnotherNumberOfRanksIsAnError) { EXPECT_NCCL_SAID(start({{0, 2, 0}, {1, 3, 1}}, true), "invalid argument: rank 1 of 3"); }
TEST(NcclRules, AnIdThatNobodyMadeIsAnError) { EXPECT_NCCL_SAID(start({{0, 1, 0}}, false), "an id that nobody made"); }
TEST(NcclRules, CallsThatBlockAreAnError) { EXPECT_NCCL_SAID(start({{0, 1, 0}}, true, 1), "does not block"); }
TEST(NcclRules, AGroupThatNobodyBeganIsAnError) { EXPECT_EQ(ncclGroupEnd(), ncclInvalidUsage); }

}  // namespace
}  // namespace lc::test
