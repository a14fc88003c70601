#include "engine/hdf5/server.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include <csignal>
#include <map>
#include <new>
#include <string_view>
#include <tuple>

#include "engine/errors.h"
#include "engine/hdf5/handles.h"
#include "engine/hdf5/object.h"
#include "engine/hdf5/progress.h"
#include "engine/hdf5/sandbox.h"
#include "engine/hdf5/socket.h"
#include "engine/hdf5/verbs.h"
#include "engine/hdf5/wire.h"

namespace lc {
namespace h5 {
namespace {

Progress* shared = nullptr;
std::uint64_t moved = 0, allowed = 0;
Fault first_fault;

}  // namespace

void begin_request(std::uint64_t budget) { moved = 0, allowed = budget; }

bool progress(std::uint64_t bytes) {
  if (shared) shared->fetch_add(bytes, std::memory_order_relaxed);
  moved += bytes;
  return moved <= allowed;
}

void note(const Fault& fault) {
  if (first_fault.what == Fault::What::none) first_fault = fault;
}

Fault take_fault() { return std::exchange(first_fault, {}); }

namespace {

void throw_if(const Fault& fault) {
  if (fault.what == Fault::What::write)
    throw ResourceError(fmt::format("{}: cannot be written: {}; check free space and permissions", fault.path, fault.reason));
  if (fault.what == Fault::What::read)
    throw DataError(fmt::format("{}: cannot be read: {}; check the disk, copy or download the file again", fault.path, fault.reason));
}

constexpr std::uint64_t kSmallBudget = std::uint64_t{1} << 30;

class Server {
 public:
  Wire answer(Verb verb, Wire& in, int descriptor);

 private:
  template <class T>
  auto argument(Wire& in) {
    using Plain = std::remove_cvref_t<T>;
    if constexpr (std::is_same_v<Plain, H5Object>)
      return std::cref(object(in.get<std::uint32_t>()));
    else if constexpr (std::is_same_v<Plain, std::string_view>)
      return in.get<std::string>();
    else if constexpr (std::is_same_v<Plain, std::span<const std::byte>>)
      return in.get<std::vector<std::byte>>();
    else
      return in.get<Plain>();
  }
  template <class R, class... A>
  void call(R (H5Object::*f)(A...) const, const H5Object& on, Wire& in) {
    const auto arguments = std::tuple{argument<A>(in)...};
    const auto run = [&](const auto&... a) { return (on.*f)(a...); };
    if constexpr (std::is_void_v<R>)
      std::apply(run, arguments);
    else
      put(std::apply(run, arguments));
  }
  template <class R>
  void put(const R& result) {
    if constexpr (std::is_same_v<R, H5Object>) {
      objects_.emplace(next_, result);
      out_.put(next_++), out_.put(result.is_dataset()), out_.put(result.path());
    } else {
      out_.put(result);
    }
  }
  void run(Verb verb, Wire& in, int descriptor);
  void refuse(int code, std::string line);
  void refuse_memory();
  void open(Wire& in, int descriptor);
  void ask(Verb verb, const H5Object& on, Wire& in);
  void write(Verb verb, const H5Object& on, Wire& in);
  const H5Object& object(std::uint32_t number) const {
    const auto found = objects_.find(number);
    if (found == objects_.end())  // the library has written over memory that is not its own
      throw DataError(
          fmt::format("object {} of it has come to harm while it was read; the file is damaged, copy or download it again", number));
    return found->second;
  }

  std::map<std::uint32_t, H5Object> objects_;
  std::uint32_t next_ = 1;
  std::uint64_t budget_ = kSmallBudget;
  Wire out_;
  std::string place_;  // what the question is about
  bool writes_ = false;
};

void Server::open(Wire& in, int descriptor) {
  const auto path = in.get<std::string>();
  place_ = path;
  const auto how = in.get<H5Open>();
  writes_ = how != H5Open::read;
  if (descriptor < 0) throw ShapeError("hdf5: open: no descriptor came with the request");
  if (const off_t size = lseek(descriptor, 0, SEEK_END); size > 0)
    budget_ = std::max(budget_, kSmallBudget + 8 * static_cast<std::uint64_t>(size));
  begin_request(budget_);
  put(H5Object::open(descriptor, path, how));
}

void Server::ask(Verb verb, const H5Object& on, Wire& in) {
  using O = H5Object;
  switch (verb) {
    case Verb::has:
      return call(&O::has, on, in);
    case Verb::is_group:
      return call(&O::is_group, on, in);
    case Verb::at:
      return call(&O::at, on, in);
    case Verb::children:
      return call(&O::children, on, in);
    case Verb::has_attribute:
      return call(&O::has_attribute, on, in);
    case Verb::attributes:
      return call(&O::attributes, on, in);
    case Verb::text:
      return call(&O::text, on, in);
    case Verb::text_or:
      return call(&O::text_or, on, in);
    case Verb::texts:
      return call(&O::texts, on, in);
    case Verb::integer:
      return call(&O::integer, on, in);
    case Verb::integers:
      return call(&O::integers, on, in);
    case Verb::referenced:
      return call(&O::referenced, on, in);
    case Verb::facts:
      return call(&O::facts, on, in);
    case Verb::item_bytes:
      return call(&O::item_bytes, on, in);
    case Verb::is_null:
      return call(&O::is_null, on, in);
    case Verb::contiguous_offset:
      return call(&O::contiguous_offset, on, in);
    case Verb::pieces:
      return call(&O::pieces, on, in);
    case Verb::read:
      return call(&O::read, on, in);
    case Verb::read_strings:
      return call(&O::read_strings, on, in);
    default:
      return write(verb, on, in);
  }
}

void Server::write(Verb verb, const H5Object& on, Wire& in) {
  using O = H5Object;
  writes_ = true;
  switch (verb) {
    case Verb::group:
      return call(&O::group, on, in);
    case Verb::remove:
      return call(&O::remove, on, in);
    case Verb::copy_from:
      return call(&O::copy_from, on, in);
    case Verb::set_text:
      return call(&O::set_text, on, in);
    case Verb::set_integer:
      return call(&O::set_integer, on, in);
    case Verb::set_double:
      return call(&O::set_double, on, in);
    case Verb::set_bool:
      return call(&O::set_bool, on, in);
    case Verb::set_texts:
      return call(&O::set_texts, on, in);
    case Verb::set_integers:
      return call(&O::set_integers, on, in);
    case Verb::set_reference:
      return call(&O::set_reference, on, in);
    case Verb::copy_attributes:
      return call(&O::copy_attributes, on, in);
    case Verb::allocate:
      return call(&O::allocate, on, in);
    case Verb::allocate_like:
      return call(&O::allocate_like, on, in);
    case Verb::allocate_strings:
      return call(&O::allocate_strings, on, in);
    case Verb::write_strings:
      return call(&O::write_strings, on, in);
    case Verb::write_string:
      return call(&O::write_string, on, in);
    case Verb::write:
      return call(&O::write, on, in);
    case Verb::append:
      return call(&O::append, on, in);
    case Verb::append_strings:
      return call(&O::append_strings, on, in);
    case Verb::copy_rows:
      return call(&O::copy_rows, on, in);
    default:
      throw ShapeError(fmt::format("hdf5: no verb {}", static_cast<int>(verb)));
  }
}

void Server::run(Verb verb, Wire& in, int descriptor) {
  if (verb == Verb::open) {
    open(in, descriptor);
  } else if (verb == Verb::forget) {
    for (const std::uint32_t number : in.get<std::vector<std::uint32_t>>()) objects_.erase(number);
    if (objects_.empty()) budget_ = kSmallBudget;
  } else {
    const H5Object& on = object(in.get<std::uint32_t>());
    place_ = on.where();
    if (verb == Verb::close) {
      writes_ = true;
      on.close();
    } else {
      ask(verb, on, in);
    }
  }
  if (verb != Verb::forget) throw_if(take_fault());
}

// The system's reason before the library's.
void Server::refuse(int code, std::string line) {
  try {
    throw_if(take_fault());
    if (code == 3 && !memory_suffices()) throw ResourceError(fmt::format("{}: there is no memory to read it; {}", place_, kFreeMemory));
  } catch (const Error& e) {
    code = e.exit_code(), line = e.what();
  }
  out_ = Wire(), out_.put(code), out_.put(line);
}

// What is written is our own: no damage can have asked for the memory.
void Server::refuse_memory() {
  if (writes_) return refuse(5, fmt::format("{}: there is no memory to write it; {}", place_, kFreeMemory));
  refuse(3, fmt::format("{}: reading it needs more memory than a file may take; the file is damaged", place_));
}

Wire Server::answer(Verb verb, Wire& in, int descriptor) {
  out_ = Wire();
  out_.put(0);
  begin_request(budget_);
  writes_ = false;
  try {
    run(verb, in, descriptor);
  } catch (const Error& e) {
    refuse(e.exit_code(), e.what());
  } catch (const std::bad_alloc&) {
    refuse_memory();
  } catch (const std::exception& e) {
    refuse(70, fmt::format("hdf5: {}", e.what()));
  }
  return std::move(out_);
}

// Nobody is there to notice when the other side is gone: fifteen seconds of computing without an answer or a byte moved end this process.
volatile std::sig_atomic_t answered = 0;
void leave_when_turning_in_circles() {
  std::signal(SIGVTALRM, [](int) {
    static std::uint64_t last_moved = 0;
    static std::sig_atomic_t last_answered = 0;
    const std::uint64_t all = shared ? shared->load(std::memory_order_relaxed) : 0;
    if (all == last_moved && answered == last_answered) _exit(9);
    last_moved = all, last_answered = answered;
  });
  const itimerval every{{15, 0}, {15, 0}};
  setitimer(ITIMER_VIRTUAL, &every, nullptr);
}

int serve() {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE, SIGXFSZ}) std::signal(signal, SIG_IGN);
  leave_when_turning_in_circles();
  void* page = mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED, kShared, 0);
  if (page == MAP_FAILED) return kNoMemory;
  shared = static_cast<Progress*>(page);
  quiet();
  enter_sandbox(kSocket);
  Server server;
  Socket socket(kSocket);
  while (std::optional<Wire> question = socket.receive()) {
    const auto verb = question->get<Verb>();
    const Wire reply = server.answer(verb, *question, verb == Verb::open ? socket.take_descriptor() : -1);
    answered = answered + 1;
    if (verb != Verb::forget && !socket.send(reply)) break;
  }
  return 0;
}

}  // namespace
}  // namespace h5

std::optional<int> serve_files(int argc, char** argv) {
  if (argc < 1 || std::string_view(argv[0]) != h5::kReaderName) return std::nullopt;
  try {
    return h5::serve();
  } catch (const std::bad_alloc&) {
    return h5::kNoMemory;
  }
}

}  // namespace lc
