// A fault of the kind that is asked for, which a sanitizer must report: one that says nothing of it says nothing of
// others.
#include <climits>
#include <cstdlib>
#include <cstring>
#include <thread>

int main(int count, char** arguments) {
  const char* const kind = count > 1 ? arguments[1] : "";
  volatile int one = 1;
  if (!std::strcmp(kind, "address")) {
    int* const numbers = static_cast<int*>(std::malloc(8 * sizeof(int)));
    numbers[7 + one] = one;
    std::free(numbers);
  } else if (!std::strcmp(kind, "undefined")) {
    volatile int most = INT_MAX;
    most = most + one;
  } else if (!std::strcmp(kind, "thread")) {
    int shared = 0;
    std::thread other([&] { shared += one; });
    shared += one;
    other.join();
  }
  return 0;
}
