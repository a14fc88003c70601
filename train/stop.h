// SIGINT, SIGTERM and SIGUSR1 (Slurm's warning) ask for a stop: the driver finishes its step, writes a checkpoint and leaves with 75. A
// second signal ends at once.
#pragma once

namespace lc {

class StopRequest {  // listens while it lives; made and destroyed by the first thread, to which signals go
 public:
  StopRequest();
  ~StopRequest();
  StopRequest(const StopRequest&) = delete;
  StopRequest& operator=(const StopRequest&) = delete;
  static bool asked();
  static const char* signal_name();
};

}  // namespace lc
