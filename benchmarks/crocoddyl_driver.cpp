// Crocoddyl's solvers on a model whose functions were generated as C, behind a C interface for ctypes.
//
// A handle owns one shooting problem and one solver; `solve` may be called on it again and again. Building it is not
// part of any time that is measured.

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include <crocoddyl/core/action-base.hpp>
#include <crocoddyl/core/optctrl/shooting.hpp>
#include <crocoddyl/core/solvers/box-ddp.hpp>
#include <crocoddyl/core/solvers/box-fddp.hpp>
#include <crocoddyl/core/states/euclidean.hpp>

using Vector = Eigen::VectorXd;
using Input = Eigen::Ref<const Vector>;
using ActionModel = crocoddyl::ActionModelAbstract;
using ActionData = crocoddyl::ActionDataAbstract;
using Data = std::shared_ptr<ActionData>;

// What casadi generates: pointers to inputs and results, two work areas and an unused memory index.
using Generated = int (*)(const double** arg, double** res, long long* iw, double* w, int mem);

class Model : public ActionModel {
 public:
  // `value` writes the next state and the cost of (x, u); `slopes` writes Fx, Fu, Lx, Lu, Lxx, Lxu, Luu. The terminal
  // model writes the cost of x, and Lx, Lxx.
  Model(std::size_t nx, std::size_t nu, Generated value, Generated slopes)
      : ActionModel(std::make_shared<crocoddyl::StateVector>(nx), nu), value_(value), slopes_(slopes) {}

  void calc(const Data& data, const Input& x, const Input& u) override {
    const double* arg[] = {x.data(), u.data()};
    double* res[] = {data->xnext.data(), &data->cost};
    value_(arg, res, nullptr, nullptr, 0);
  }
  void calc(const Data& data, const Input& x) override {
    const double* arg[] = {x.data()};
    double* res[] = {&data->cost};
    value_(arg, res, nullptr, nullptr, 0);
  }
  void calcDiff(const Data& data, const Input& x, const Input& u) override {
    ActionData& d = *data;
    const double* arg[] = {x.data(), u.data()};
    double* res[] = {d.Fx.data(),  d.Fu.data(),  d.Lx.data(), d.Lu.data(),
                     d.Lxx.data(), d.Lxu.data(), d.Luu.data()};
    slopes_(arg, res, nullptr, nullptr, 0);
  }
  void calcDiff(const Data& data, const Input& x) override {
    const double* arg[] = {x.data()};
    double* res[] = {data->Lx.data(), data->Lxx.data()};
    slopes_(arg, res, nullptr, nullptr, 0);
  }

  // Crocoddyl asks every model for its casts to other scalars; nothing here uses them.
  std::shared_ptr<crocoddyl::ActionModelBase> cloneAsDouble() const override { return nullptr; }
  std::shared_ptr<crocoddyl::ActionModelBase> cloneAsFloat() const override { return nullptr; }

 private:
  Generated value_, slopes_;
};

struct Handle {
  std::shared_ptr<crocoddyl::ShootingProblem> problem;
  std::unique_ptr<crocoddyl::SolverDDP> solver;
  std::vector<Vector> xs, us;
};

extern "C" {

// `name` is DDP, FDDP, BoxDDP or BoxFDDP; `lower` and `upper` are null without limits. Null if the name is unknown.
Handle* create(const char* name, int nx, int nu, int T, Generated* functions, const double* lower,
               const double* upper) {
  auto stage = std::make_shared<Model>(nx, nu, functions[0], functions[1]);
  auto final = std::make_shared<Model>(nx, 0, functions[2], functions[3]);
  if (lower != nullptr) {
    stage->set_u_lb(Eigen::Map<const Vector>(lower, nu));
    stage->set_u_ub(Eigen::Map<const Vector>(upper, nu));
  }
  std::vector<std::shared_ptr<ActionModel>> stages(T, stage);
  auto handle = std::make_unique<Handle>();
  handle->problem = std::make_shared<crocoddyl::ShootingProblem>(Vector::Zero(nx), stages, final);
  handle->problem->set_nthreads(1);  // the wheel uses OpenMP, whose threads wait for each other longer than they work
  const std::string solver(name);
  if (solver == "DDP") handle->solver = std::make_unique<crocoddyl::SolverDDP>(handle->problem);
  if (solver == "FDDP") handle->solver = std::make_unique<crocoddyl::SolverFDDP>(handle->problem);
  if (solver == "BoxDDP") handle->solver = std::make_unique<crocoddyl::SolverBoxDDP>(handle->problem);
  if (solver == "BoxFDDP") handle->solver = std::make_unique<crocoddyl::SolverBoxFDDP>(handle->problem);
  if (!handle->solver) return nullptr;
  handle->xs.assign(T + 1, Vector::Zero(nx));
  handle->us.assign(T, Vector::Zero(nu));
  return handle.release();
}

void destroy(Handle* handle) { delete handle; }

// Solve from x0 and `us`, and from the states `states` unless `infeasible` is 0; then write the solution over `us` and
// `states`, its cost to `cost` and the wall seconds to `seconds`. Returns the number of iterations.
int solve(Handle* handle, const double* x0, double* us, double* states, int infeasible, int maxiter, double th_stop,
          double* cost, double* seconds) {
  crocoddyl::SolverDDP& solver = *handle->solver;
  const int T = handle->us.size(), nx = handle->xs[0].size(), nu = handle->us[0].size();
  for (int t = 0; t < T; ++t) handle->us[t] = Eigen::Map<const Vector>(us + t * nu, nu);
  for (int t = 0; t <= T; ++t) handle->xs[t] = Eigen::Map<const Vector>(states + t * nx, nx);
  solver.set_th_stop(th_stop);

  const auto start = std::chrono::steady_clock::now();
  handle->problem->set_x0(Eigen::Map<const Vector>(x0, nx));
  if (!infeasible) handle->problem->rollout(handle->us, handle->xs);
  const bool converged = solver.solve(handle->xs, handle->us, maxiter, !infeasible);
  *seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

  for (int t = 0; t < T; ++t) Eigen::Map<Vector>(us + t * nu, nu) = solver.get_us()[t];
  for (int t = 0; t <= T; ++t) Eigen::Map<Vector>(states + t * nx, nx) = solver.get_xs()[t];
  *cost = solver.get_cost();
  return solver.get_iter() + converged;
}
}
