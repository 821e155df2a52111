import { createRoot } from 'react-dom/client';
import { BrowserRouter, Link, Route, Routes, useNavigate, useParams } from 'react-router-dom';

const ask = async (path, what) => {
	const answer = await fetch(import.meta.env.VITE_API + path, {
		method: 'POST',
		credentials: 'include', // else no cookie of the API goes with it
		headers: { 'content-type': 'application/json' },
		body: JSON.stringify(what),
	});
	return answer.json();
};

const Home = () => (
	<ul>
		{['kettle', 'cup'].map(sku => <li key={sku}><Link id={sku} to={`/products/${sku}`}>{sku}</Link></li>)}
	</ul>
);

const Product = () => {
	const { sku } = useParams(), go = useNavigate();
	const order = async event => {
		event.preventDefault();
		const { order } = await ask('/orders', { sku, email: event.target.email.value });
		go(`/thanks/${order}`);
	};
	return (
		<>
			<h1>{sku}</h1>
			<button id="cart" onClick={() => ask('/cart', { sku })}>Put into the cart</button>
			<button id="contact" data-capi-event="Contact">Ask about it</button>
			<form onSubmit={order}>
				<input name="email" type="email" defaultValue="jane@example.com" />
				<button id="order">Buy it</button>
			</form>
			<Link id="home" to="/">All tea things</Link>
		</>
	);
};

createRoot(document.getElementById('root')).render(
	<BrowserRouter>
		<Routes>
			<Route path="/" element={<Home />} />
			<Route path="/products/:sku" element={<Product />} />
			<Route path="/thanks/:order" element={<h1>Thank you</h1>} />
		</Routes>
	</BrowserRouter>,
);
