#include "cli/app.h"

int main(int argc, char** argv) {
  return limner::cli::run(argc, argv);
}
