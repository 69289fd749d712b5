// Runs https_server.py, with a certificate authority of its own, for as long as the object lives.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace limner {

class HttpsServer {
 public:
  HttpsServer() {
    namespace fs = std::filesystem;
    std::string name = (fs::temp_directory_path() / "limner_https_XXXXXX").string();
    folder = mkdtemp(name.data());
    const std::string certificate = (folder / "certificate.pem").string();
    const std::string key = (folder / "key.pem").string();
    const std::string make =
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        "-subj /CN=limner-test -addext subjectAltName=DNS:localhost,IP:127.0.0.1,IP:127.0.0.2 "
        "-keyout '" +
        key + "' -out '" + certificate + "' 2>'" + (folder / "openssl.txt").string() + "'";
    if (std::system(make.c_str()) != 0) return;
    const std::string line = "exec python3 " LIMNER_SOURCE_DIR "/tests/fault/https_server.py '" +
                             certificate + "' '" + key + "' '" + files().string() + "'";
    std::filesystem::create_directory(files());
    int out[2], in[2];
    if (pipe(out) != 0 || pipe(in) != 0) return;
    child_ = fork();
    if (child_ == 0) {
      dup2(in[0], STDIN_FILENO);
      dup2(out[1], STDOUT_FILENO);
      for (const int descriptor : {in[0], in[1], out[0], out[1]}) close(descriptor);
      execl("/bin/sh", "sh", "-c", line.c_str(), nullptr);
      _exit(127);
    }
    close(in[0]);
    close(out[1]);
    input_ = in[1];
    std::FILE* ports = fdopen(out[0], "r");
    ready = std::fscanf(ports, "%d %d %d %d", &main, &forbidden, &other, &plain) == 4;
    std::fclose(ports);
  }
  ~HttpsServer() {
    if (input_ >= 0) close(input_);
    if (child_ > 0) {
      kill(child_, SIGTERM);
      waitpid(child_, nullptr, 0);
    }
    std::filesystem::remove_all(folder);
  }
  HttpsServer(const HttpsServer&) = delete;
  HttpsServer& operator=(const HttpsServer&) = delete;

  std::string url(const std::string& path) const {
    return "https://127.0.0.1:" + std::to_string(main) + path;
  }
  std::filesystem::path authority() const { return folder / "certificate.pem"; }
  // What lies here is served as url("/files/NAME").
  std::filesystem::path files() const { return folder / "files"; }

  bool ready = false;
  std::filesystem::path folder;
  // Ports: https on 127.0.0.1, https on 127.0.0.2, a second https and plain http on 127.0.0.1.
  int main = 0, forbidden = 0, other = 0, plain = 0;

 private:
  pid_t child_ = -1;
  int input_ = -1;
};

}  // namespace limner
