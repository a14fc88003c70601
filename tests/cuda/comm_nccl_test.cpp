// Ranks on GPUs as threads, over NCCL's twin.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "engine/errors.h"
#include "engine/launch.h"
#include "engine/tensor.h"
#include "tests/cuda/on_gpus.h"
#include "tests/shim/nccl.h"

namespace lc::test {
namespace {

std::span<float> floats(const Tensor& t) { return {t.data<float>(), static_cast<std::size_t>(t.shape().count())}; }

TEST(CommNccl, SumsAreEverybodysAndOfEqualBits) {
  for (const int ranks : {2, 3, 4}) {
    std::vector<std::vector<float>> sums(static_cast<std::size_t>(ranks));
    on_gpus(ranks, [&](Communicator& c, const Queue& queue) {
      std::vector<float> own(1003);
      for (std::size_t i = 0; i < own.size(); ++i)
        own[i] = 1.0f / static_cast<float>(1 + (i * 7 + static_cast<std::size_t>(c.rank()) * 13) % 101);
      const Tensor t = Tensor::from(own, queue);
      for (int again = 0; again < 3; ++again) c.all_reduce_sum_on(queue, floats(t));
      sums[static_cast<std::size_t>(c.rank())] = t.to_host<float>();
    });
    for (std::size_t i = 0; i < sums[0].size(); ++i) {
      double wanted = 0;
      for (int r = 0; r < ranks; ++r) wanted += 1.0 / static_cast<double>(1 + (i * 7 + static_cast<std::size_t>(r) * 13) % 101);
      wanted *= ranks * ranks;
      ASSERT_NEAR(sums[0][i], wanted, 1e-5 * wanted) << i;
    }
    for (const auto& s : sums) EXPECT_EQ(s, sums[0]);
  }
}

TEST(CommNccl, RowsOfAllLieInTheOrderOfTheRanks) {
  for (const std::vector<std::int64_t>& counts :
       {std::vector<std::int64_t>{5, 5, 5}, std::vector<std::int64_t>{3, 0, 4}, std::vector<std::int64_t>{0, 0, 0}}) {
    on_gpus(3, [&](Communicator& c, const Queue& queue) {
      std::vector<float> wanted;
      for (std::size_t r = 0; r < counts.size(); ++r)
        wanted.insert(wanted.end(), static_cast<std::size_t>(counts[r]), static_cast<float>(r + 1));
      std::vector<float> own = wanted;
      for (float& x : own) x = x == static_cast<float>(c.rank() + 1) ? x : -1;
      const Tensor t = Tensor::from(own, queue);
      c.all_gather_on(queue, floats(t), counts);
      EXPECT_EQ(t.to_host<float>(), wanted);
    });
  }
}

// The twin does such a sum as late as it may be, and tells of numbers that were not there before it or that change under it.
TEST(CommNccl, SumsBesideTheWorkAreThereAfterTheirEnd) {
  on_gpus(3, [](Communicator& c, const Queue& queue) {
    const auto rank = static_cast<float>(c.rank());
    const Tensor first = Tensor::from(std::vector<float>{rank, 1}, queue), second = Tensor::from(std::vector<float>{2, rank, 5}, queue);
    c.begin_sum_on(queue, floats(first));
    Tensor::from(std::vector<float>{7}, queue).to(DType::bf16);  // work goes on
    c.begin_sum_on(queue, floats(second));
    c.begin_sum_on(queue, {});
    EXPECT_EQ(first.to_host<float>(), (std::vector<float>{rank, 1})) << "nobody has waited for it";
    c.end_sums_on(queue);
    EXPECT_EQ(first.to_host<float>(), (std::vector<float>{3, 3}));
    EXPECT_EQ(second.to_host<float>(), (std::vector<float>{6, 3, 15}));
    c.all_reduce_sum_on(queue, floats(first));
    EXPECT_EQ(first.to_host<float>(), (std::vector<float>{9, 9})) << "in the queue's own stream again";
    EXPECT_GE(c.take_waited_s(), 0);
    float host = 1;
    c.begin_sum_on(Queue{}, {&host, 1});
    c.end_sums_on(Queue{});
    EXPECT_EQ(host, 3);
  });
}
TEST(CommNccl, ValuesOfTheHostTakeItsOwnPath) {
  on_gpus(2, [&](Communicator& c, const Queue&) {
    double one = 1;
    c.all_reduce_sum(std::span<double>(&one, 1));
    EXPECT_EQ(one, 2);
    std::vector<float> values{static_cast<float>(c.rank()), 1};
    c.all_reduce_sum_on(Queue{}, values);
    EXPECT_EQ(values, (std::vector<float>{1, 2}));
    c.all_gather_on(Queue{}, values, std::vector<std::int64_t>{1, 1});
    EXPECT_EQ(values, (std::vector<float>{1, 2}));
    const auto rank = static_cast<std::int64_t>(c.rank());
    EXPECT_EQ(c.all_gather_rows(std::span(&rank, 1)), (std::vector<std::int64_t>{0, 1}));
    EXPECT_EQ(c.size(), 2);
    c.barrier();
  });
}

TEST(CommNccl, NobodyWaitsForAGpuUntilItsNumbersAreRead) {
  std::atomic<bool> asked = false;
  on_gpus(2, [&](Communicator& c, const Queue& queue) {
    const Tensor t = Tensor::from(std::vector<float>{1, 2}, queue);
    if (c.rank() == 1) {
      while (!asked) std::this_thread::yield();  // the first rank has gone on before this one came
    }
    c.all_reduce_sum_on(queue, floats(t));
    asked = true;
    EXPECT_EQ(t.to_host<float>(), (std::vector<float>{2, 4}));
  });
}

// What every rank that got so far is told after it has read its numbers.
void expect_peer_error(int ranks, const std::string& part, const std::function<void(Communicator&, const Queue&)>& body,
                       double patience_s = 600) {
  std::atomic<int> told = 0;
  try {
    on_gpus(
        ranks,
        [&](Communicator& c, const Queue& queue) {
          try {
            body(c, queue);
            c.barrier();
          } catch (const PeerError& e) {
            EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
            ++told;
            throw;
          }
          ADD_FAILURE() << "rank " << c.rank() << " noticed nothing";
        },
        patience_s);
  } catch (const PeerError&) {}
  EXPECT_GT(told, 0);
}

TEST(CommNccl, RanksThatCallDifferentCollectivesAreToldBeforeTheyBelieveANumber) {
  expect_peer_error(3, "rank 1 calls ncclAllGather", [](Communicator& c, const Queue& queue) {
    const Tensor t = Tensor::from(std::vector<float>{1, 2, 3}, queue);
    if (c.rank() == 1)
      c.all_gather_on(queue, floats(t), std::vector<std::int64_t>{1, 1, 1});
    else
      c.all_reduce_sum_on(queue, floats(t));
    t.to_host<float>();
  });
}
TEST(CommNccl, RanksThatBringDifferentCountsAreTold) {
  expect_peer_error(2, "rank 1 calls ncclAllReduce of 2 values", [](Communicator& c, const Queue& queue) {
    const Tensor t = Tensor::from(std::vector<float>{1, 2, 3}, queue);
    c.all_reduce_sum_on(queue, floats(t).subspan(0, c.rank() == 0 ? 3 : 2));
    t.to_host<float>();
  });
}
TEST(CommNccl, MemoryOfTheHostIsRefusedForAGpu) {
  expect_peer_error(2, "wanted memory of GPU", [](Communicator& c, const Queue& queue) {
    std::vector<float> host{1, 2, 3};
    c.all_reduce_sum_on(queue, host);
  });
}
TEST(CommNccl, ARankThatFailsFreesTheOthersFromTheirGpus) {
  std::atomic<int> freed = 0;
  EXPECT_THROW(on_gpus(3,
                       [&](Communicator& c, const Queue& queue) {
                         const Tensor t = Tensor::from(std::vector<float>{1, 2, 3}, queue);
                         if (c.rank() == 2) throw DataError("a file is gone");
                         c.all_reduce_sum_on(queue, floats(t));
                         t.to_host<float>();  // waits for the third, until it is noticed that it does not come
                         EXPECT_THROW(c.barrier(), PeerError);
                         ++freed;
                       }),
               DataError);
  EXPECT_EQ(freed, 2);
}
TEST(CommNccl, ARankThatNeverComesIsGivenUp) {
  expect_peer_error(
      2, "another rank does not answer",
      [](Communicator& c, const Queue& queue) {
        const Tensor t = Tensor::from(std::vector<float>{1, 2, 3}, queue);
        if (c.rank() == 0) c.all_reduce_sum_on(queue, floats(t));
        t.to_host<float>();
      },
      1);
}
TEST(CommNccl, ARankThatDoesNotStartIsGivenUp) {
  std::string said;
  on_ranks(2, [&](Communicator& host) {
    ncclUniqueId id{};
    if (host.rank() == 1) return host.broadcast(std::as_writable_bytes(std::span(&id, 1)), 0);  // and no more
    try {
      comm_nccl(host, {.queue = {Device::cuda, 0}, .patience_s = 0.2});
    } catch (const PeerError& e) {
      said = e.what();
    }
  });
  EXPECT_NE(said.find("start: other ranks did not answer"), std::string::npos) << said;
}
TEST(CommNccl, TwoRanksOnOneGpuAreRefusedWithAdvice) {
  try {
    on_ranks(2, [](Communicator& host) { comm_nccl(host, {.queue = {Device::cuda, 0}, .patience_s = 5}); });
    FAIL() << "no error";
  } catch (const UsageError& e) {
    EXPECT_NE(std::string(e.what()).find("start one rank for each GPU"), std::string::npos) << e.what();
  }
}
TEST(CommNccl, RanksInHostMemoryRefuseNumbersOfAGpu) {
  on_ranks(2, [](Communicator& host) {
    float one = 1;
    EXPECT_THROW(host.all_reduce_sum_on({Device::cuda, 0}, {&one, 1}), ShapeError);
    EXPECT_THROW(host.all_gather_on({Device::cuda, 0}, {&one, 1}, std::vector<std::int64_t>{1, 0}), ShapeError);
  });
}
TEST(CommNccl, RanksOnCpusAndGpusDoNotMix) {
  on_ranks(2, [](Communicator& host) { require_one_kind_of_device(host, {Device::cuda, host.rank()}); });
  EXPECT_THROW(on_ranks(2, [](Communicator& host) { require_one_kind_of_device(host, {host.rank() == 0 ? Device::cpu : Device::cuda}); }),
               UsageError);
}

}  // namespace
}  // namespace lc::test
