// The report in a browser: headless Chromium opens the file, the page tests itself (#selftest), and
// what it shows, wrote to its console or asked of a network is looked at here. Skips without one.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <sstream>
#include <thread>

#include "tests/tracer/trace_fixture.h"
#include "tests/ui-export/html_fixture.h"
#include "tests/ui-export/job_fixture.h"
#include "ui-export/html/answer.h"

extern char** environ;

namespace orrery {
namespace {

using testing::TempDir;

bool has_chromium() {
  std::stringstream path(std::getenv("PATH") ? std::getenv("PATH") : "");
  for (std::string folder; std::getline(path, folder, ':');) {
    if (::access((folder + "/chromium").c_str(), X_OK) == 0) return true;
  }
  return false;
}

struct Shown {
  int code = -1;
  std::string dom, log;
};

// Ends the browser, and what it started, after a minute.
int wait_for(pid_t child) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  int status = 0;
  while (::waitpid(child, &status, WNOHANG) == 0) {
    if (std::chrono::steady_clock::now() > end) {
      ::kill(-child, SIGKILL);
      ::waitpid(child, &status, 0);
      return -1;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// The page as the browser has it after its scripts ran, and what it logged. `address` may end in
// "#selftest".
Shown open_page(const TempDir& dir, const std::string& address) {
  std::vector<std::string> words = {"chromium",
                                    "--headless=new",
                                    "--no-sandbox",
                                    "--disable-gpu",
                                    "--disable-dev-shm-usage",
                                    "--no-first-run",
                                    "--window-size=1440,900",
                                    "--virtual-time-budget=4000",
                                    "--enable-logging=stderr",
                                    "--v=0",
                                    "--user-data-dir=" + dir.file("browser"),
                                    "--dump-dom",
                                    address};
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  const int flags = O_WRONLY | O_CREAT | O_TRUNC;
  posix_spawn_file_actions_addopen(&files, 1, dir.file("dom").c_str(), flags, 0600);
  posix_spawn_file_actions_addopen(&files, 2, dir.file("log").c_str(), flags, 0600);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  pid_t child = 0;
  const int failed =
      ::posix_spawnp(&child, words[0].c_str(), &files, &attributes, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  posix_spawnattr_destroy(&attributes);
  Shown shown;
  if (failed != 0) return shown;
  shown.code = wait_for(child);
  shown.dom = testing::read_file(dir.file("dom"));
  shown.log = testing::read_file(dir.file("log"));
  return shown;
}

// Opens the page and expects: nothing on the console, nothing failed, every check of its own good.
std::string check_page(const TempDir& dir, const std::string& page, std::size_t checks) {
  const std::string file = dir.file("report.html");
  testing::write_file(file, page);
  const Shown shown = open_page(dir, "file://" + file + "#selftest");
  EXPECT_EQ(shown.code, 0) << shown.log;
  EXPECT_EQ(shown.log.find("CONSOLE"), std::string::npos) << shown.log;
  EXPECT_NE(shown.dom.find("data-drawn=\"yes\""), std::string::npos);
  EXPECT_EQ(shown.dom.find("data-failed"), std::string::npos);
  const std::string open = "<pre id=\"selftest\">";
  const std::size_t begin = shown.dom.rfind(open);
  if (begin == std::string::npos) {
    ADD_FAILURE() << "the page did not test itself";
    return shown.dom;
  }
  const std::size_t end = shown.dom.find("</pre>", begin);
  std::stringstream lines(shown.dom.substr(begin + open.size(), end - begin - open.size()));
  std::size_t good = 0;
  for (std::string line; std::getline(lines, line);) {
    const bool ok = line.size() > 4 && line.substr(line.size() - 4) == ": ok";
    EXPECT_TRUE(ok) << line;
    good += ok ? 1 : 0;
  }
  EXPECT_GE(good, checks);
  return shown.dom.substr(0, begin);
}

// Texts that a reader sees, outside the scripts and the document.
std::string body_of(const std::string& dom) {
  const std::size_t end = dom.find("<script type=\"application/json\"");
  return dom.substr(0, end);
}

class HtmlBrowser : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!has_chromium()) GTEST_SKIP() << "no chromium here: scripts/install-deps --tests";
  }
};

TEST_F(HtmlBrowser, ARunBesideItsPrediction) {
  const TempDir dir;
  const testing::Pair pair = testing::simulated_pair();
  TraceReader sim = testing::write_trace(dir.file("sim.db"), testing::info_of(pair, RunKind::kSim),
                                         pair.program, pair.predicted);
  TraceReader run = testing::write_trace(
      dir.file("run.db"), testing::info_of(pair, RunKind::kMeasured), pair.program, pair.measured);
  const std::string body = body_of(check_page(dir, testing::page_of(&sim, &run), 20));
  for (const char* text :
       {"Step time", "Where they differ most", "Peak memory is as predicted", "id=\"timeline\"",
        "id=\"breakdown\"", "id=\"ops\"", "id=\"memory\"", "id=\"experts\"", "id=\"steps\"",
        "id=\"plan\"", "scatter-canvas", "rank", "error"}) {
    EXPECT_NE(body.find(text), std::string::npos) << text;
  }
}

TEST_F(HtmlBrowser, APlanSimulated) {
  const TempDir dir;
  testing::Pair pair = testing::simulated_pair();
  const RunnerUp runner{pair.plan.layout, pair.plan.chunks, pair.plan.policy, pair.plan.predicted,
                        "nothing: it is the same plan"};
  pair.plan.runners_up = {runner};
  TraceReader sim = testing::write_trace(dir.file("sim.db"), testing::info_of(pair, RunKind::kSim),
                                         pair.program, pair.predicted);
  const std::string body = body_of(check_page(dir, testing::page_of(&sim, nullptr), 14));
  for (const char* text : {"Nothing was measured", "Runners-up", "nothing: it is the same plan"}) {
    EXPECT_NE(body.find(text), std::string::npos) << text;
  }
  EXPECT_EQ(body.find("id=\"steps\""), std::string::npos);
  EXPECT_EQ(body.find("scatter-canvas"), std::string::npos);
}

TEST_F(HtmlBrowser, AJobOverAllAxes) {
  const TempDir dir;
  JobPageInput input;
  input.answer = html::answer_of_job(testing::job_plan_text(), "plan.json").value();
  input.schedule = testing::pipeline_picture(2, 64);
  const std::string page = job_page(input);
  EXPECT_EQ(page, job_page(input));
  EXPECT_LT(page.size(), 300'000U);
  const std::string body = body_of(check_page(dir, page, 14));
  for (const char* text : {"2.00&nbsp;s a step",
                           "1.50&nbsp;s to 2.50&nbsp;s",
                           "the fastest of 1.23&nbsp;M legal jobs",
                           "proved",
                           "Next best: no pipeline, +50.0&nbsp;% (compute +0.75 s)",
                           "Closed.",
                           "1,234,567",
                           "the best that was found of it",
                           "id=\"frontier-canvas\"",
                           "+75.0&nbsp;%",
                           "2.79&nbsp;GiB",
                           "no &lt;b&gt;recompute&lt;/b&gt;",
                           "the axes do not multiply",
                           "How it drains",
                           "2 stages",
                           "each product is cut over 2 neighbouring devices",
                           "rank 0",
                           "weights",
                           "2.33&nbsp;GiB",
                           "(fits to 99.5&nbsp;%)"}) {
    EXPECT_NE(body.find(text), std::string::npos) << text;
  }
  EXPECT_EQ(body.find("<b>recompute"), std::string::npos);
}

// A plan of the engine is its trace and what its planner answered.
TEST_F(HtmlBrowser, AnAnsweredPlan) {
  const TempDir dir;
  testing::Pair pair = testing::simulated_pair();
  RunnerUp runner{pair.plan.layout,
                  pair.plan.chunks,
                  pair.plan.policy,
                  pair.plan.predicted,
                  "no swap: +10.00 %: all of it",
                  false};
  runner.predicted.step = Seconds(1.1 * runner.predicted.step.value());
  pair.plan.runners_up = {runner};
  pair.plan.rejected = {{"heads_divide", 12}};
  pair.plan.proof = {1000, 400, 5, 0, 2.0, 1.5, 0.1};
  TraceReader sim = testing::write_trace(dir.file("sim.db"), testing::info_of(pair, RunKind::kSim),
                                         pair.program, pair.predicted);
  HtmlInput input;
  input.predicted = &sim;
  input.answer = html::answer_json(pair.plan, {});
  const std::string body = body_of(check_page(dir, html_report(input).value(), 14));
  for (const char* text : {"trains fastest on", "id=\"families\"", "id=\"timeline\"", "no swap",
                           "+10.0&nbsp;%", "at most 25.0&nbsp;% better exists", "Open.",
                           "the attention heads do not divide", "orrery plan --frontier"}) {
    EXPECT_NE(body.find(text), std::string::npos) << text;
  }
}

TEST_F(HtmlBrowser, ATraceOfNothingAndAHostileOne) {
  const TempDir dir;
  const Program plain = testing::small_program(2);
  TraceReader empty = testing::write_trace(dir.file("empty.db"), testing::run_info(plain), plain,
                                           {}, RunStatus::kFailed, "<b>killed</b> & gone");
  const std::string nothing = body_of(check_page(dir, testing::page_of(nullptr, &empty), 2));
  EXPECT_NE(nothing.find("&lt;b&gt;killed&lt;/b&gt; &amp; gone"), std::string::npos);
  EXPECT_NE(nothing.find("holds no spans"), std::string::npos);
  EXPECT_EQ(nothing.find("id=\"memory\""), std::string::npos);

  Program hostile = testing::small_program(2);
  for (Role& role : hostile.roles) {
    for (Op& op : role.ops) op.path = "</script><img src=x onerror=alert(1)>" + op.path;
  }
  TraceReader run = testing::write_trace(dir.file("hostile.db"), testing::run_info(hostile),
                                         hostile, testing::random_events(hostile, 2, 3));
  const std::string body = body_of(check_page(dir, testing::page_of(nullptr, &run), 14));
  EXPECT_EQ(body.find("<img"), std::string::npos);
  EXPECT_NE(body.find("&lt;img src=x"), std::string::npos);
}

}  // namespace
}  // namespace orrery
